// Canonical answers of the Node.js clients; the rules are those of canonical.py.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

export const SMOKE = JSON.parse(readFileSync(new URL('../smoke.json', import.meta.url), 'utf8'));
export const MEGABYTES_16 = 16 * 1024 * 1024;

const env = process.env;
/** Where and how to connect: the environment that the runner sets for every client program. */
export const target = {
  host: env.SMOKE_HOST ?? '127.0.0.1',
  port: Number(env.SMOKE_PORT ?? 1433),
  user: env.SMOKE_USER ?? 'sa',
  password: env.SMOKE_PASSWORD ?? '',
  database: env.SMOKE_DATABASE ?? 'master',
  encryption: env.SMOKE_ENCRYPTION ?? 'off',
  authority: env.SMOKE_CA ?? '',
  table: env.SMOKE_TABLE ?? 'smoke',
  part: env.SMOKE_PART ?? 'smoke',
};

const fraction = (text) => (text.includes('.') ? text.replace(/0+$/, '').replace(/\.$/, '') : text);

/** A Date as its SQL type writes it; the drivers keep what is finer than milliseconds in `nanosecond(s)Delta` (seconds). */
function moment(date, type) {
  const iso = date.toISOString();
  const delta = date.nanosecondsDelta ?? date.nanosecondDelta ?? 0;
  const fine = String(Math.round(delta * 1e7)).padStart(4, '0');
  const clock = fraction(`${iso.slice(11, 23)}${fine}`);
  switch (type) {
    case 'Date':
      return iso.slice(0, 10);
    case 'Time':
      return clock;
    case 'DateTimeOffset':
      return `${iso.slice(0, 10)}T${clock}+00:00`;
    default:
      return `${iso.slice(0, 10)}T${clock}`;
  }
}

/** One value as text, or null; `type` is the column's type name, which only dates and GUIDs need. */
export function canonical(value, type = '') {
  if (value === null || value === undefined) return null;
  if (typeof value === 'boolean') return value ? '1' : '0';
  if (Buffer.isBuffer(value)) return `0x${value.toString('hex')}`;
  if (value instanceof Date) return moment(value, type);
  if (type === 'UniqueIdentifier') return String(value).toLowerCase();
  return String(value);
}

export function digest(value) {
  const data = Buffer.isBuffer(value) ? value : Buffer.from(value, 'utf8');
  return { size: data.length, sha256: createHash('sha256').update(data).digest('hex') };
}

/** Many rows: how many, and the hash of `a|b|NULL\n` for each. */
export class RowsDigest {
  count = 0;
  hash = createHash('sha256');

  add(row) {
    this.count += 1;
    this.hash.update(`${row.map((v) => canonical(v) ?? 'NULL').join('|')}\n`);
  }

  answer() {
    return { rows: this.count, sha256: this.hash.digest('hex') };
  }
}

function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
  }
  return value;
}

/** A server's error as {error: [number, text]}, anything else as {exception: text}. */
export function ofError(error) {
  const found = [error, error?.originalError, error?.cause, ...(error?.errors ?? [])].find((e) => typeof e?.number === 'number');
  if (found) return { error: [found.number, found.message] };
  return { exception: `${error?.name}: ${error?.code ?? ''} ${error?.message}` };
}

export async function errorOf(action) {
  try {
    return { 'no error': canonical(await action()) };
  } catch (error) {
    return ofError(error);
  }
}

/** Runs one check, prints its answer; `recover` gives the next check a fresh connection after an unexpected error. */
export async function check(name, action, recover = async () => {}) {
  let answer;
  try {
    answer = await action();
  } catch (error) {
    answer = ofError(error);
    await recover();
  }
  process.stdout.write(`${JSON.stringify({ answer: sorted(answer), check: name })}\n`);
}

/** What was just done has this name: the runner looks at the session and says when to go on. */
export async function step(name) {
  process.stdout.write(`${JSON.stringify({ step: name })}\n`);
  await new Promise((resolve) => process.stdin.once('data', resolve));
}
