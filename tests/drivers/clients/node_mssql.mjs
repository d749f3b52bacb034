// mssql (node-mssql) over tedious: its pool is what applications use; the smoke is the part that goes through the pool.

import { readFileSync } from 'node:fs';
import sql from 'mssql';
import { canonical, check, digest, errorOf, ofError, RowsDigest, SMOKE, step, target } from './canonical.mjs';

const encrypted = target.encryption !== 'off';
const config = (changes = {}) => ({
  server: target.host,
  port: target.port,
  user: target.user,
  password: target.password,
  database: target.database,
  connectionTimeout: 20_000,
  requestTimeout: 60_000,
  pool: { min: 0, max: target.part === 'holds' ? 1 : 2, idleTimeoutMillis: 5_000 },
  ...changes,
  options: {
    encrypt: target.encryption === 'strict' ? 'strict' : encrypted,
    trustServerCertificate: false,
    serverName: encrypted ? 'localhost' : undefined,
    cryptoCredentialsDetails: encrypted ? { ca: readFileSync(target.authority) } : {},
  },
});

const pool = await new sql.ConnectionPool(config()).connect();
const table = target.table;
const rows = (result) => result.recordset.map((row) => Object.values(row).map((v) => canonical(v)));
const query = async (text) => rows(await pool.request().query(text));
const value = async (text) => (await query(text))[0][0];

/** Uses one thing after the other; what each keeps is looked at in between. */
async function holds() {
  const insert = `INSERT INTO ${table} (id) VALUES (1)`;
  const use = async (name, action) => {
    await action();
    await step(name);
  };
  const batch = (text) => pool.request().batch(text);
  await use('query', () => batch('SELECT 1 AS n'));
  await use('parameters', () => pool.request().input('p', sql.Int, 1).query('SELECT @p AS n'));
  const statement = new sql.PreparedStatement(pool);
  statement.input('n', sql.Int);
  await statement.prepare('SELECT @n * 2 AS d');
  await use('prepared', () => statement.execute({ n: 1 }));
  await use('prepared.ended', () => statement.unprepare());
  await use('set', () => batch('SET LOCK_TIMEOUT 1234'));
  await batch(`DROP TABLE IF EXISTS ${table}; CREATE TABLE ${table} (id int NOT NULL, name nvarchar(50) NULL)`);
  await use('insert', () => batch(insert));
  await use('insert.next', () => batch('SELECT 1 AS n'));
  const transaction = new sql.Transaction(pool);
  await use('transaction.begun', () => transaction.begin());
  await use('transaction', () => new sql.Request(transaction).query(insert));
  await use('transaction.ended', () => transaction.commit());
  await use('temp_table', () => batch('CREATE TABLE #t (a int)'));
  await use('temp_table.ended', () => batch('DROP TABLE #t'));
  await use('cursor', () => batch('DECLARE c CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2)) v(n); OPEN c'));
  await use('cursor.ended', () => batch('CLOSE c; DEALLOCATE c'));
  const load = new sql.Table(table);
  load.columns.add('id', sql.Int, { nullable: false });
  load.columns.add('name', sql.NVarChar(50), { nullable: true });
  load.rows.add(1, 'one');
  await use('bulk.ended', () => pool.request().bulk(load));
}

if (target.part === 'holds') {
  await holds();
  await pool.close();
  process.exit(0);
}

await check('session', () => query('SELECT DB_NAME() AS d, SUSER_SNAME() AS s, @@TRANCOUNT AS t'));
await check('parameter.out', async () => {
  const said = await pool.request().input('i', sql.Int, 21).output('o', sql.Int).query('SET @o = @i * 2');
  return canonical(said.output.o);
});
await check('procedure', async () => {
  await pool.request().batch(`DROP PROCEDURE IF EXISTS ${table}_p`);
  await pool
    .request()
    .batch(`CREATE PROCEDURE ${table}_p @i int, @o int OUTPUT AS BEGIN SET NOCOUNT ON; SELECT @i AS i; SET @o = @i * 2; RETURN 7 END`);
  const said = await pool.request().input('i', sql.Int, 21).output('o', sql.Int).execute(`${table}_p`);
  await pool.request().batch(`DROP PROCEDURE ${table}_p`);
  return { rows: rows(said), out: canonical(said.output.o), status: canonical(said.returnValue) };
});
for (const [name, end] of [
  ['commit', 'commit'],
  ['rollback', 'rollback'],
]) {
  await check(`transaction.${name}`, async () => {
    await pool.request().batch(`DROP TABLE IF EXISTS ${table}; CREATE TABLE ${table} (a int)`);
    const transaction = new sql.Transaction(pool);
    await transaction.begin();
    await new sql.Request(transaction).query(`INSERT INTO ${table} VALUES (1)`);
    await new sql.Request(transaction).query(`INSERT INTO ${table} VALUES (2)`);
    const inside = rows(await new sql.Request(transaction).query('SELECT @@TRANCOUNT AS t'))[0][0];
    await transaction[end]();
    return { inside, rows: await value(`SELECT COUNT(*) AS n FROM ${table}`) };
  });
}
await check('prepared', async () => {
  const statement = new sql.PreparedStatement(pool);
  statement.input('n', sql.Int);
  statement.input('s', sql.NVarChar(50));
  await statement.prepare('SELECT @n * 2 AS d, @s AS s');
  const answers = [];
  for (let n = 0; n < 5; n += 1) answers.push(...rows(await statement.execute({ n, s: `value ${n}` })));
  await statement.unprepare();
  return answers;
});
await check('rows.100000', async () => {
  const seen = new RowsDigest();
  const request = pool.request();
  request.stream = true;
  await new Promise((resolve, reject) => {
    request.on('row', (row) => seen.add(Object.values(row)));
    request.on('error', reject);
    request.on('done', resolve);
    request.query(SMOKE.many_rows);
  });
  return seen.answer();
});
await check('big.down', async () => digest((await pool.request().query(SMOKE.big_value)).recordset[0].big));
await check('cancel.waitfor', async () => {
  const began = Date.now();
  const request = pool.request();
  setTimeout(() => request.cancel(), 500);
  let said = 'not cancelled';
  try {
    await request.query("WAITFOR DELAY '00:00:30'");
  } catch (error) {
    said = error.code === 'ECANCEL' ? 'cancelled' : ofError(error);
  }
  return { said, soon: Date.now() - began < 10_000, then: await value("SELECT 'still here' AS v") };
});
await check('bulk', async () => {
  await pool.request().batch(`DROP TABLE IF EXISTS ${table}`);
  const load = new sql.Table(table);
  load.create = true;
  load.columns.add('id', sql.Int, { nullable: false });
  load.columns.add('name', sql.NVarChar(50), { nullable: true });
  load.columns.add('price', sql.Decimal(10, 2), { nullable: true });
  load.columns.add('at', sql.DateTime, { nullable: true });
  for (let n = 1; n <= 1000; n += 1) {
    load.rows.add(n, n % 5 === 0 ? null : `řádek ${n}`, n / 4, new Date(Date.UTC(2024, 0, 1, 0, 0, n % 60)));
  }
  await pool.request().bulk(load);
  const totals = await query(`SELECT COUNT(*) AS a, COUNT(name) AS b, SUM(id) AS c, SUM(price) AS d FROM ${table}`);
  return { totals, first: await query(`SELECT * FROM ${table} WHERE id IN (1, 5, 777) ORDER BY id`) };
});
await check('error.divide', async () => ({
  first: await errorOf(() => pool.request().query('SELECT 1/0 AS v')),
  then: await value("SELECT 'still here' AS v"),
}));
await check('login.wrong_password', () => errorOf(() => new sql.ConnectionPool(config({ password: 'wrong' })).connect()));
await check('login.unknown_database', () => errorOf(() => new sql.ConnectionPool(config({ database: 'no_such_database' })).connect()));
await check('last', () => query('SELECT DB_NAME() AS d, SUSER_SNAME() AS s, @@TRANCOUNT AS t'));
await pool.close();
