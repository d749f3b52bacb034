// tedious: off says ENCRYPT_NOT_SUP, on is full encryption, strict is TDS 8.0.

import { readFileSync } from 'node:fs';
import { Connection, Request, TYPES } from 'tedious';
import { canonical, check, digest, errorOf, MEGABYTES_16, ofError, RowsDigest, SMOKE, step, target } from './canonical.mjs';

function connect(changes = {}) {
  const encrypted = target.encryption !== 'off';
  const connection = new Connection({
    server: target.host,
    authentication: {
      type: 'default',
      options: { userName: target.user, password: changes.password ?? target.password },
    },
    options: {
      port: target.port,
      database: changes.database ?? target.database,
      encrypt: target.encryption === 'strict' ? 'strict' : target.encryption === 'on',
      trustServerCertificate: false,
      // The certificate names localhost; an address cannot be a TLS server name.
      serverName: encrypted ? 'localhost' : undefined,
      cryptoCredentialsDetails: encrypted ? { ca: readFileSync(target.authority) } : {},
      connectTimeout: 20_000,
      requestTimeout: 60_000,
      useUTC: true,
    },
  });
  return new Promise((resolve, reject) => {
    // The error of a failed login has no number: the server's own message comes first, by itself.
    let said;
    connection.on('errorMessage', (message) => (said ??= message));
    connection.on('error', () => {});
    connection.connect((error) => (error ? reject(said ?? error) : resolve(connection)));
  });
}

/** Runs a request and gathers what came: result sets, row counts, output parameters, status. */
function run(connection, sql, { how = 'execSql', inputs = [], outputs = [], onRow, keep = true, started } = {}) {
  return new Promise((resolve, reject) => {
    const sets = [];
    const out = {};
    let status;
    const request = new Request(sql, (error, count) => (error ? reject(error) : resolve({ sets, out, status, count })));
    request.on('columnMetadata', () => sets.push([]));
    request.on('row', (columns) => {
      const values = columns.map((c) => c.value);
      if (onRow) onRow(values);
      if (keep) sets.at(-1).push(columns.map((c) => canonical(c.value, c.metadata.type.name === 'DateTimeOffset' ? 'DateTimeOffset' : typeName(c.metadata))));
    });
    request.on('returnValue', (name, value) => (out[name] = canonical(value)));
    request.on('doneProc', (_count, _more, returned) => (status = returned));
    for (const [name, type, value, options] of inputs) request.addParameter(name, type, value, options);
    for (const [name, type] of outputs) request.addOutputParameter(name, type);
    connection[how](request);
    started?.(request);
  });
}

/** The types whose JavaScript value does not tell what it was. */
function typeName(metadata) {
  const name = metadata.type.name;
  if (/UniqueIdentifier/.test(name)) return 'UniqueIdentifier';
  return name;
}

let connection = await connect();
const table = target.table;

async function recover() {
  connection.close();
  connection = await connect();
}

const rows = async (sql, options, on = connection) => (await run(on, sql, options)).sets[0];
const value = async (sql, options, on = connection) => (await rows(sql, options, on))[0][0];
const batch = async (sql, on = connection) => await run(on, sql, { how: 'execSqlBatch' });
const smoke = (name, action) => check(name, action, recover);

async function fresh(columns) {
  await batch(`DROP TABLE IF EXISTS ${table}`);
  await batch(`CREATE TABLE ${table} (${columns})`);
}

const promised = (method, ...given) =>
  new Promise((resolve, reject) => connection[method]((error) => (error ? reject(error) : resolve()), ...given));

/** A prepared request: `run` executes it, `end` drops it. */
async function prepare(sql, parameters, onRow) {
  let settle;
  const request = new Request(sql, (error) => settle(error));
  for (const [name, type] of parameters) request.addParameter(name, type);
  request.on('row', (columns) => onRow(columns.map((c) => canonical(c.value))));
  const step = (action) =>
    new Promise((resolve, reject) => {
      settle = (error) => (error ? reject(error) : resolve());
      action();
    });
  const prepared = new Promise((resolve) => request.once('prepared', resolve));
  settle = (error) => {
    throw error;
  };
  connection.prepare(request);
  await prepared;
  await new Promise((resolve) => setImmediate(resolve));
  return {
    run: (values) => step(() => connection.execute(request, values)),
    end: () => step(() => connection.unprepare(request)),
  };
}

/** Uses one thing after the other; what each keeps is looked at in between. */
async function holds() {
  const insert = `INSERT INTO ${table} (id) VALUES (1)`;
  const use = async (name, action) => {
    await action();
    await step(name);
  };
  await use('query', () => batch('SELECT 1 AS n'));
  await use('parameters', () => value('SELECT @p AS n', { inputs: [['p', TYPES.Int, 1]] }));
  const statement = await prepare('SELECT @n * 2 AS d', [['n', TYPES.Int]], () => {});
  await use('prepared', () => statement.run({ n: 1 }));
  await use('prepared.ended', () => statement.end());
  await use('set', () => batch('SET LOCK_TIMEOUT 1234'));
  await fresh('id int NOT NULL, name nvarchar(50) NULL');
  await use('insert', () => batch(insert));
  await use('insert.next', () => batch('SELECT 1 AS n'));
  await use('transaction.begun', () => promised('beginTransaction'));
  await use('transaction', () => batch(insert));
  await use('transaction.ended', () => promised('commitTransaction'));
  await use('temp_table', () => batch('CREATE TABLE #t (a int)'));
  await use('temp_table.ended', () => batch('DROP TABLE #t'));
  await use('cursor', () => batch('DECLARE c CURSOR GLOBAL STATIC FOR SELECT n FROM (VALUES (1), (2)) v(n); OPEN c'));
  await use('cursor.ended', () => batch('CLOSE c; DEALLOCATE c'));
  await use('bulk.ended', () =>
    new Promise((resolve, reject) => {
      const load = connection.newBulkLoad(table, {}, (error) => (error ? reject(error) : resolve()));
      load.addColumn('id', TYPES.Int, { nullable: false });
      load.addColumn('name', TYPES.NVarChar, { length: 50, nullable: true });
      connection.execBulkLoad(load, [[1, 'one'], [2, null]]);
    }),
  );
}

if (target.part === 'holds') {
  await holds();
  connection.close();
  process.exit(0);
}

await smoke('session', () => rows('SELECT DB_NAME(), SUSER_SNAME(), @@TRANCOUNT'));
for (const [name, type, literal] of SMOKE.types) {
  await smoke(`type.${name}`, () => value(`SELECT CAST(${literal} AS ${type}) AS v`));
}
for (const [name, type] of SMOKE.types) {
  await smoke(`null.${name}`, () => value(`SELECT CAST(NULL AS ${type}) AS v`));
}

const PARAMETERS = [
  ['int', TYPES.Int, 42],
  ['negative', TYPES.SmallInt, -7],
  ['bigint', TYPES.BigInt, '9223372036854775807'],
  ['bit', TYPES.Bit, true],
  ['float', TYPES.Float, 2.5],
  ['decimal', TYPES.Decimal, 12345.678, { precision: 12, scale: 3 }],
  ['text', TYPES.NVarChar, 'Žluťoučký 漢字 😀'],
  ['empty', TYPES.NVarChar, ''],
  ['bytes', TYPES.VarBinary, Buffer.from([0, 1, 0xfe, 0xff])],
  ['datetime', TYPES.DateTime2, new Date('2024-02-29T13:14:15.123Z')],
  ['date', TYPES.Date, new Date('2024-02-29T00:00:00Z')],
  ['guid', TYPES.UniqueIdentifier, '6F9619FF-8B86-D011-B42D-00C04FC964FF'],
  ['null', TYPES.NVarChar, null],
];
for (const [name, type, given, options] of PARAMETERS) {
  await smoke(`parameter.${name}`, () => value('SELECT @p AS v', { inputs: [['p', type, given, options]] }));
}
await smoke('parameter.out', async () => {
  const { out } = await run(connection, 'SET @o = @i * 2', { inputs: [['i', TYPES.Int, 21]], outputs: [['o', TYPES.Int]] });
  return out.o;
});
await smoke('procedure', async () => {
  await batch(`DROP PROCEDURE IF EXISTS ${table}_p`);
  await batch(
    `CREATE PROCEDURE ${table}_p @i int, @o int OUTPUT AS BEGIN SET NOCOUNT ON; SELECT @i AS i; SET @o = @i * 2; RETURN 7 END`,
  );
  const said = await run(connection, `${table}_p`, {
    how: 'callProcedure',
    inputs: [['i', TYPES.Int, 21]],
    outputs: [['o', TYPES.Int]],
  });
  await batch(`DROP PROCEDURE ${table}_p`);
  return { rows: said.sets[0], out: said.out.o, status: canonical(said.status) };
});

async function inTransaction(end) {
  await fresh('a int');
  await promised('beginTransaction');
  await batch(`INSERT INTO ${table} VALUES (1)`);
  await batch(`INSERT INTO ${table} VALUES (2)`);
  const inside = await value('SELECT @@TRANCOUNT');
  await end();
  return { inside, rows: await value(`SELECT COUNT(*) FROM ${table}`) };
}
await smoke('transaction.commit', () => inTransaction(() => promised('commitTransaction')));
await smoke('transaction.rollback', () => inTransaction(() => promised('rollbackTransaction')));
await smoke('transaction.autocommit_off', () =>
  inTransaction(async () => {
    const closed = new Promise((resolve) => connection.once('end', resolve));
    connection.close();
    await closed;
    connection = await connect();
  }),
);
await smoke('transaction.savepoint', async () => {
  await fresh('a int');
  await promised('beginTransaction');
  await batch(`INSERT INTO ${table} VALUES (1)`);
  await promised('saveTransaction', 'here');
  await batch(`INSERT INTO ${table} VALUES (2)`);
  await promised('rollbackTransaction', 'here');
  await promised('commitTransaction');
  return rows(`SELECT a FROM ${table}`);
});
await smoke('transaction.text', async () => {
  await fresh('a int');
  const counts = [];
  for (const end of ['ROLLBACK', 'COMMIT']) {
    await batch('BEGIN TRANSACTION');
    await batch(`INSERT INTO ${table} VALUES (1)`);
    counts.push(await value('SELECT @@TRANCOUNT'));
    await batch(end);
    counts.push(await value(`SELECT COUNT(*) FROM ${table}`));
  }
  return counts;
});
await smoke('temp_table', async () => {
  await batch('CREATE TABLE #t (a int, b nvarchar(20))');
  await batch("INSERT INTO #t VALUES (1, N'jedna'), (2, NULL)");
  await batch('INSERT INTO #t SELECT a + 10, b FROM #t');
  return rows('SELECT a, b FROM #t ORDER BY a');
});
await smoke('temp_table.elsewhere', async () => {
  const other = await connect();
  try {
    return await errorOf(() => rows('SELECT a FROM #t', {}, other));
  } finally {
    other.close();
  }
});
await smoke('prepared', async () => {
  const answers = [];
  const parameters = [['n', TYPES.Int], ['s', TYPES.NVarChar]];
  const statement = await prepare('SELECT @n * 2 AS d, @s AS s', parameters, (row) => answers.push(row));
  for (let n = 0; n < 5; n += 1) await statement.run({ n, s: `value ${n}` });
  await statement.end();
  return answers;
});
await smoke('rows.100000', async () => {
  const seen = new RowsDigest();
  await run(connection, SMOKE.many_rows, { how: 'execSqlBatch', onRow: (row) => seen.add(row), keep: false });
  return seen.answer();
});
await smoke('big.down', async () => digest(await value(SMOKE.big_value)));

async function bigUp(type, given, size) {
  const inputs = [['p', type, given, { length: Infinity }]];
  const length = await value('SELECT DATALENGTH(@p) AS n', { inputs });
  let back;
  await run(connection, 'SELECT @p AS v', { inputs, onRow: ([v]) => (back = digest(v)), keep: false });
  return { length, back };
}
await smoke('big.up', () => bigUp(TYPES.VarBinary, Buffer.alloc(MEGABYTES_16, Buffer.from([...Array(256).keys()]))));
await smoke('big.up_text', () => bigUp(TYPES.NVarChar, '0123456789abčdef'.repeat(MEGABYTES_16 / 32)));

await smoke('cancel.waitfor', async () => {
  const began = Date.now();
  let said = 'not cancelled';
  try {
    await run(connection, "WAITFOR DELAY '00:00:30'", { started: () => setTimeout(() => connection.cancel(), 500) });
  } catch (error) {
    said = error.code === 'ECANCEL' ? 'cancelled' : ofError(error);
  }
  return { said, soon: Date.now() - began < 10_000, then: await value("SELECT 'still here' AS v") };
});
await smoke('cancel.rows', async () => {
  const first = [];
  let request;
  try {
    await run(connection, SMOKE.many_rows, {
      keep: false,
      started: (r) => (request = r),
      onRow: ([v]) => {
        if (first.length < 10) first.push(canonical(v));
        else connection.cancel();
      },
    });
  } catch (error) {
    if (error.code !== 'ECANCEL') throw error;
  }
  return { first, then: await value("SELECT 'still here' AS v") };
});
await smoke('bulk', async () => {
  await fresh('id int NOT NULL, name nvarchar(50) NULL, price decimal(10,2) NULL, at datetime NULL');
  await new Promise((resolve, reject) => {
    const load = connection.newBulkLoad(table, {}, (error) => (error ? reject(error) : resolve()));
    load.addColumn('id', TYPES.Int, { nullable: false });
    load.addColumn('name', TYPES.NVarChar, { length: 50, nullable: true });
    load.addColumn('price', TYPES.Decimal, { precision: 10, scale: 2, nullable: true });
    load.addColumn('at', TYPES.DateTime, { nullable: true });
    const data = [];
    for (let n = 1; n <= 1000; n += 1) {
      data.push([n, n % 5 === 0 ? null : `řádek ${n}`, n / 4, new Date(Date.UTC(2024, 0, 1, 0, 0, n % 60))]);
    }
    connection.execBulkLoad(load, data);
  });
  const totals = await rows(`SELECT COUNT(*), COUNT(name), SUM(id), SUM(price) FROM ${table}`);
  return { totals, first: await rows(`SELECT * FROM ${table} WHERE id IN (1, 5, 777) ORDER BY id`) };
});

const errorThen = (sql) => async () => ({
  first: await errorOf(() => batch(sql)),
  then: await value("SELECT 'still here' AS v"),
});
await smoke('error.divide', errorThen('SELECT 1/0 AS v'));
await smoke('error.object', errorThen('SELECT * FROM no_such_table'));
await smoke('error.syntax', errorThen('SELECT FROM t'));
await smoke('error.raiserror', errorThen("RAISERROR('boom %d', 16, 1, 42)"));
await smoke('error.throw', errorThen("THROW 50001, 'thrown', 1"));
await smoke('error.duplicate', async () => {
  await fresh('a int PRIMARY KEY');
  await batch(`INSERT INTO ${table} VALUES (1)`);
  const said = await errorOf(() => batch(`INSERT INTO ${table} VALUES (1)`));
  return { number: said.error?.[0] ?? said, then: await rows(`SELECT a FROM ${table}`) };
});
await smoke('sets', async () => {
  const sql = "SELECT 1 AS a; SELECT 'x' AS b, 'y' AS c UNION ALL SELECT 'z', NULL; SELECT 3 AS d WHERE 1 = 0; SELECT 4 AS e";
  return (await batch(sql)).sets;
});
await smoke('messages', async () => {
  const heard = [];
  const listen = (message) => heard.push([message.number, message.message]);
  connection.on('infoMessage', listen);
  await batch("PRINT 'hello'; RAISERROR('careful', 10, 1)");
  connection.off('infoMessage', listen);
  return heard;
});
await smoke('count', async () => {
  await fresh('a int, b int');
  return [
    (await batch(`INSERT INTO ${table} VALUES (1, 1), (2, 2), (3, 3)`)).count,
    (await batch(`UPDATE ${table} SET b = b + 1 WHERE a > 1`)).count,
    (await batch(`DELETE FROM ${table}`)).count,
  ];
});
await smoke('identity', async () => {
  await fresh('id int IDENTITY(10, 5) PRIMARY KEY, a int');
  return rows(
    `SET NOCOUNT ON; INSERT INTO ${table} (a) VALUES (1); INSERT INTO ${table} (a) VALUES (2);` +
      ' SELECT SCOPE_IDENTITY() AS i, @@ROWCOUNT AS n',
  );
});
await smoke('reset', async () => {
  await batch('SET LOCK_TIMEOUT 1234');
  const before = await value('SELECT @@LOCK_TIMEOUT AS t');
  await promised('reset');
  return [before, await value('SELECT @@LOCK_TIMEOUT AS t'), await value('SELECT DB_NAME() AS d')];
});
await smoke('login.wrong_password', () => errorOf(async () => (await connect({ password: `wrong ${target.password}` })).close()));
await smoke('login.unknown_database', () => errorOf(async () => (await connect({ database: 'no_such_database' })).close()));
await smoke('last', () => rows('SELECT DB_NAME(), SUSER_SNAME(), @@TRANCOUNT'));
connection.close();
