'use strict';
// The frame of a Node runner: arguments, cases one by one, JSON lines. The same contract as
// harness/runner.py: one line per case, `{client, case, ok, detail, ms}`; a case fails by throwing, has its
// own deadline and opens its own connections.

const CASE_MS = 40_000;
const DETAIL_MAX = 500;

/** The job described by the command line. */
function parseArguments(argv) {
  const job = { many: 10_000, flush: false };
  for (let i = 0; i < argv.length; i += 1) {
    const name = argv[i].slice(2);
    if (name === 'flush') job.flush = true;
    else job[name] = argv[(i += 1)];
  }
  job.many = Number(job.many);
  job.nodes = job.nodes.split(',');
  job.cases = job.cases.split(',');
  // Keys of one case share a hash tag, so that cluster drivers take them; `spread` keys do not.
  job.key = (name, rest = '') => `{${job.prefix}:${name}}:${rest}`;
  job.spread = (name, rest = '') => `${job.prefix}:${name}:${rest}`;
  return job;
}

/** Runs the cases of the job that `cases` (name -> async function) knows, then ends the process. */
async function run(cases) {
  const job = parseArguments(process.argv.slice(2));
  for (const name of job.cases) {
    const started = Date.now();
    let detail = '';
    let timer;
    const deadline = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the case took more than ${CASE_MS} ms`)), CASE_MS);
    });
    try {
      await Promise.race([cases[name](job), deadline]);
    } catch (error) {
      detail = describe(error);
    }
    clearTimeout(timer);
    const line = { client: job.client, case: name, ok: detail === '', detail, ms: Date.now() - started };
    await new Promise((done) => process.stdout.write(`${JSON.stringify(line)}\n`, done));
  }
  process.exit(0);
}

/** An error in one line, with the place in the workload that threw it. */
function describe(error) {
  const stack = (error && error.stack) || '';
  const place = stack.split('\n').find((line) => line.includes('workload.js')) || '';
  return `${error && error.name}: ${error && error.message} ${place.trim()}`.slice(0, DETAIL_MAX);
}

/** Fails unless the two are equal as JSON (buffers byte for byte). */
function equal(actual, expected, what = 'reply') {
  const same = Buffer.isBuffer(expected)
    ? Buffer.isBuffer(actual) && actual.equals(expected)
    : JSON.stringify(actual) === JSON.stringify(expected);
  if (!same) throw new Error(`${what}: expected ${short(expected)}, got ${short(actual)}`);
}

/** Fails unless `low <= actual <= high`. */
function between(actual, low, high, what = 'reply') {
  if (!(actual >= low && actual <= high)) throw new Error(`${what}: expected ${low}..${high}, got ${short(actual)}`);
}

function short(value) {
  if (Buffer.isBuffer(value)) return `${value.length} bytes ${value.subarray(0, 40).toString('latin1')}`;
  return String(JSON.stringify(value)).slice(0, 160);
}

/** Resolves after `ms` milliseconds. */
function sleep(ms) {
  return new Promise((done) => setTimeout(done, ms));
}

/** The answer, asked again for five seconds at most while the connection is gone. */
async function eventually(ask) {
  const end = Date.now() + 5_000;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(50);
    }
  }
}

module.exports = { run, equal, between, sleep, eventually };
