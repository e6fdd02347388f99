// test.mjs URL MODEL-ID KEYED-URL KEY: hearth's API through OpenAI's Node client. Started by tests/test_api_node.py, which
// runs the two servers (the second with API keys). The last line reads 'N passed, N failed, N skipped'.
import OpenAI from 'openai';

const [url, model, keyedUrl, key] = process.argv.slice(2);
const client = (baseURL = url, apiKey = 'none') => new OpenAI({ baseURL: baseURL + '/v1', apiKey, maxRetries: 0 });
const messages = [{ role: 'user', content: 'Tell me about the sea.' }];
let passed = 0;
let failed = 0;

function check(what, good, detail = '') {
  good ? passed++ : failed++;
  if (!good) console.log(`FAILED: ${what}: ${typeof detail === 'string' ? detail : JSON.stringify(detail)}`);
}

async function fails(what, kind, call, { param, code, text } = {}) {
  try {
    await call();
    check(what, false, 'there was no error');
  } catch (e) {
    const good = e instanceof kind && (param === undefined || e.param === param) && (code === undefined || e.code === code)
      && (text === undefined || e.message.includes(text));
    check(what, good, `${e.constructor.name}: ${e.message} param=${e.param} code=${e.code}`);
  }
}

async function metric(name) {
  const text = await (await fetch(url + '/metrics')).text();
  return Number(text.match(new RegExp(`^${name} (\\S+)$`, 'm'))[1]);
}

async function waitMetric(name, value, limitMs) {
  const begin = performance.now();
  while (performance.now() < begin + limitMs) {
    if (await metric(name) === value) return performance.now() - begin;
  }
  return Infinity;
}

async function chat() {
  const c = client();
  const p = { model, messages, temperature: 0, max_tokens: 24, logprobs: true, top_logprobs: 2 };
  const r = await c.chat.completions.create(p);
  check('chat', r.object === 'chat.completion' && r.choices[0].message.role === 'assistant' && r.choices[0].message.content.length > 0, r);
  check('usage', r.usage.completion_tokens === 24 && r.usage.total_tokens === 24 + r.usage.prompt_tokens, r.usage);
  check('finish', r.choices[0].finish_reason === 'length', r.choices[0].finish_reason);
  let text = '';
  let usage = null;
  let finish = null;
  const entries = [];
  for await (const x of await c.chat.completions.create({ ...p, stream: true, stream_options: { include_usage: true } })) {
    text += x.choices[0]?.delta?.content ?? '';
    finish = x.choices[0]?.finish_reason ?? finish;
    entries.push(...(x.choices[0]?.logprobs?.content ?? []));
    usage = x.usage ?? usage;
  }
  check('a stream is the whole', text === r.choices[0].message.content && finish === 'length', text);
  check('usage of a stream', JSON.stringify(usage) === JSON.stringify(r.usage), usage);
  check('log probabilities of a stream', JSON.stringify(entries) === JSON.stringify(r.choices[0].logprobs.content), entries);
  const seen = [];
  const runner = c.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 24 });
  runner.on('content', (piece) => seen.push(piece));
  check("the client's own way of streaming", await runner.finalContent() === text && seen.join('') === text, seen);
  const [a, b] = await Promise.all([7, 7].map((seed) => c.chat.completions.create({ model, messages, seed, n: 2, max_tokens: 16 })));
  check('the same seed', JSON.stringify(a.choices) === JSON.stringify(b.choices) && a.choices.length === 2, a.choices);
}

async function completions() {
  const c = client();
  const p = { model, prompt: 'The sea is', temperature: 0, max_tokens: 12, stop: [' zzz'], logprobs: 2 };
  const r = await c.completions.create(p);
  check('completion', r.object === 'text_completion' && r.choices[0].logprobs.tokens.join('') === r.choices[0].text && r.usage.completion_tokens === 12, r);
  let text = '';
  for await (const x of await c.completions.create({ ...p, stream: true })) text += x.choices[0]?.text ?? '';
  check('a streamed completion is the whole', text === r.choices[0].text, text);
  const listed = [];
  for await (const m of await c.models.list()) listed.push(m.id);
  check('models', listed.length === 1 && listed[0] === model && (await c.models.retrieve(model)).id === model, listed);
}

async function errors() {
  const c = client();
  const create = (more) => () => c.chat.completions.create({ model, messages, max_tokens: 2, ...more });
  await fails('unknown model', OpenAI.NotFoundError, create({ model: 'gpt-4' }), { param: 'model', code: 'model_not_found', text: 'gpt-4' });
  await fails('retrieve', OpenAI.NotFoundError, () => c.models.retrieve('gpt-4'));
  await fails('wrong type', OpenAI.BadRequestError, create({ max_tokens: 'many' }), { param: 'max_tokens', code: 'invalid_type' });
  await fails('wrong type, streamed', OpenAI.BadRequestError, create({ temperature: 'hot', stream: true }), { param: 'temperature' });
  await fails('unknown field', OpenAI.BadRequestError, create({ no_such: 1 }), { param: 'no_such', code: 'unknown_field' });
  await fails('tools', OpenAI.BadRequestError, create({ tools: [{ type: 'function', function: { name: 'f' } }] }), { param: 'tools', code: 'unsupported' });
  await fails('too long', OpenAI.BadRequestError, create({ messages: [{ role: 'user', content: 'sea '.repeat(9000) }] }), { code: 'context_length_exceeded', param: 'messages', text: '4096' });
  await fails('no key', OpenAI.AuthenticationError, () => client(keyedUrl, 'wrong-key').models.list(), { code: 'invalid_api_key' });
  const r = await client(keyedUrl, key).chat.completions.create({ model, messages, max_tokens: 2 });
  check('the right key', r.usage.completion_tokens === 2, r);
}

async function aborts() {
  const c = client();
  for (const how of ['controller', 'break', 'signal']) {
    const signal = new AbortController();
    const stream = await c.chat.completions.create({ model, messages, max_tokens: 3500, ignore_eos: true, stream: true }, { signal: signal.signal });
    let n = 0;
    try {
      for await (const x of stream) {
        n += x.choices.length;
        if (n === 4 && how === 'controller') stream.controller.abort();
        if (n === 4 && how === 'signal') signal.abort();
        if (n === 4 && how === 'break') break;
      }
    } catch (e) {
      check(`${how}: an abort and nothing else`, e instanceof OpenAI.APIUserAbortError, e.message);
    }
    const took = await waitMetric('hearth_requests_running', 0, 3000);
    console.log(`    aborted by ${how}: nothing runs after ${took.toFixed(0)} ms`);
    check(`${how}: the answer is cancelled`, n < 3000 && took < 500, took);
  }
}

for (const part of [chat, completions, errors, aborts]) {
  try {
    await part();
  } catch (e) {
    check(part.name, false, e.stack);
  }
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed ? 1 : 0);
