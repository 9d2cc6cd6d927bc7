// The runtime of AWS for Node, as far as a function of one handler needs it: asks for an event, answers it, asks for the next.
import { handler } from './handler.mjs';

const api = process.env.AWS_LAMBDA_RUNTIME_API;
const base = `${api.startsWith('http') ? api : `http://${api}`}/2018-06-01/runtime/invocation`;
for (;;) {
  const next = await fetch(`${base}/next`);
  const id = next.headers.get('lambda-runtime-aws-request-id');
  const event = await next.json();
  try {
    const body = JSON.stringify(await handler(event));
    await fetch(`${base}/${id}/response`, { method: 'POST', body });
  } catch (error) {
    await fetch(`${base}/${id}/error`, { method: 'POST', body: JSON.stringify({ errorMessage: String(error), errorType: error.name }) });
  }
}
