// The router as it is usually written: one handler for Node 20 with the SDK of AWS, version 3. It is what the Rust one is measured
// against, so it decides the same from the same tables: host → client, cookie → session, then forward, wait or wake.
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import { request as http } from 'node:http';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { DynamoDBDocumentClient, GetCommand, UpdateCommand } from '@aws-sdk/lib-dynamodb';
import { ECSClient, RunTaskCommand } from '@aws-sdk/client-ecs';

const {
  EDIT_DOMAIN, CLIENT_CONFIGS_TABLE, SESSIONS_TABLE, ECS_CLUSTER, TASK_DEFINITION, CONTAINER_NAME = 'edit-agent',
  SUBNETS = '', SECURITY_GROUPS = '', ALLOWED_CIDRS = '',
} = process.env;
const COOKIE = '__Host-edit-session';
const SESSION_ID = /^[a-z0-9][a-z0-9_-]{0,56}$/;
const SIZES = { small: ['512', '1024'], medium: ['1024', '2048'], large: ['2048', '4096'] };

// Made in init, as AWS advises.
const tables = DynamoDBDocumentClient.from(new DynamoDBClient({}));
const ecs = new ECSClient({});

const number = (ip) => ip.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const networks = ALLOWED_CIDRS.split(',').filter(Boolean).map((cidr) => {
  const [ip, bits = '32'] = cidr.split('/');
  const size = 2 ** (32 - Number(bits));
  return [Math.floor(number(ip) / size), size];
});
const allowed = (ip) => /^\d+\.\d+\.\d+\.\d+$/.test(ip ?? '') && !ip.startsWith('169.254.') && networks.some(([start, size]) => Math.floor(number(ip) / size) === start);

const get = async (TableName, Key) => (await tables.send(new GetCommand({ TableName, Key, ConsistentRead: true }))).Item;

const answer = (status, body, headers = {}) => ({
  statusCode: status,
  statusDescription: String(status),
  headers: { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store', ...headers },
  body,
  isBase64Encoded: false,
});
const notFound = () => answer(404, 'There is nothing here.');
const waiting = (session) => answer(503, `<!doctype html><title>One moment</title><h1>One moment</h1><p>${session.phase ?? session.state}</p><form method="post" action="/_edit/wake"><button>Wake it</button></form>`, { 'retry-after': '2', 'x-robots-tag': 'noindex' });

function cookieOf(headers) {
  for (const pair of (headers.cookie ?? '').split(';')) {
    const [name, value] = pair.trim().split('=');
    if (name === COOKIE && SESSION_ID.test(value)) return value;
  }
  return null;
}

function target(event) {
  const query = Object.entries(event.queryStringParameters ?? {}).map(([key, value]) => (value === '' ? key : `${key}=${value}`)).join('&');
  return query ? `${event.path}?${query}` : event.path;
}

const mac = (key, text) => createHmac('sha256', Buffer.from(key, 'hex')).update(text).digest();

function forward(event, session) {
  const { sessionId, generation, proofKey, containerIp, port } = session;
  const [seconds, nonce] = [Math.floor(Date.now() / 1000), randomBytes(16).toString('hex')];
  const proof = mac(proofKey, `edit-proof request\n${sessionId}\n${generation}\n${seconds}\n${nonce}`).toString('hex');
  const headers = { ...event.headers, 'edit-proof': `v1 ${generation} ${seconds} ${nonce} ${proof}` };
  delete headers.cookie;
  delete headers['content-length'];
  return new Promise((resolve) => {
    const asked = http({ host: containerIp, port, method: event.httpMethod, path: target(event), headers }, (response) => {
      const expected = mac(proofKey, `edit-proof answer\n${sessionId}\n${generation}\n${nonce}`);
      const said = Buffer.from((response.headers['edit-proof'] ?? '').replace('v1 ', ''), 'hex');
      if (said.length !== expected.length || !timingSafeEqual(said, expected)) {
        response.destroy();
        return resolve(waiting(session));
      }
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        const body = Buffer.concat(chunks);
        const type = response.headers['content-type'] ?? '';
        const text = /^text\/|json|javascript|xml/.test(type) && !response.headers['content-encoding'];
        const headers = Object.fromEntries(Object.entries(response.headers).filter(([name]) => name !== 'edit-proof').map(([name, value]) => [name, String(value)]));
        resolve({ statusCode: response.statusCode, statusDescription: String(response.statusCode), headers, body: body.toString(text ? 'utf8' : 'base64'), isBase64Encoded: !text });
      });
    });
    asked.on('error', () => resolve(waiting(session)));
    asked.end(event.body ? Buffer.from(event.body, event.isBase64Encoded ? 'base64' : 'utf8') : undefined);
  });
}

async function wake(config, session) {
  const generation = session.generation + 1;
  try {
    await tables.send(new UpdateCommand({
      TableName: SESSIONS_TABLE,
      Key: { sessionId: session.sessionId },
      UpdateExpression: 'SET #state = :waking, generation = :next, proofKey = :key',
      ConditionExpression: 'generation = :seen AND (#state IN (:dormant, :failed) OR leaseUntil < :now)',
      ExpressionAttributeNames: { '#state': 'state' },
      ExpressionAttributeValues: {
        ':waking': 'waking', ':dormant': 'dormant', ':failed': 'failed', ':next': generation, ':seen': session.generation,
        ':key': randomBytes(32).toString('hex'), ':now': new Date().toISOString(),
      },
    }));
  } catch (error) {
    if (error.name === 'ConditionalCheckFailedException') return waiting(session);
    throw error;
  }
  const [cpu, memory] = SIZES[config.settings.containerSize];
  await ecs.send(new RunTaskCommand({
    cluster: ECS_CLUSTER,
    taskDefinition: TASK_DEFINITION,
    launchType: 'FARGATE',
    clientToken: `${session.sessionId}-${generation}`.slice(-64),
    networkConfiguration: { awsvpcConfiguration: { subnets: SUBNETS.split(','), securityGroups: SECURITY_GROUPS.split(',') } },
    overrides: {
      cpu, memory,
      containerOverrides: [{
        name: CONTAINER_NAME,
        environment: Object.entries({ CLIENT_ID: config.clientId, SESSION_ID: session.sessionId, GENERATION: String(generation) }).map(([name, value]) => ({ name, value })),
      }],
    },
  }));
  return waiting({ ...session, state: 'waking' });
}

export async function handler(event) {
  if (!event.requestContext?.elb) throw new Error('unknown event');
  const host = (event.headers.host ?? '').toLowerCase().split(':')[0];
  const client = host.startsWith('edit.') && host.endsWith(`.${EDIT_DOMAIN}`) ? host.slice('edit.'.length, -EDIT_DOMAIN.length - 1) : null;
  if (!client || !/^[a-z0-9](-?[a-z0-9]){1,23}$/.test(client)) return notFound();

  const entry = /^\/session\/([^/]+)(\/.*)?$/.exec(event.path);
  const id = entry ? entry[1] : cookieOf(event.headers);
  if (!id || !SESSION_ID.test(id)) return notFound();
  const [config, session] = await Promise.all([get(CLIENT_CONFIGS_TABLE, { clientId: client }), get(SESSIONS_TABLE, { sessionId: id })]);
  if (!config || config.status !== 'active' || session?.clientId !== client) return notFound();

  if (entry) {
    return answer(303, '', { location: entry[2] ?? '/', 'set-cookie': `${COOKIE}=${id}; Path=/; HttpOnly; Secure; SameSite=Lax` });
  }
  if (event.path === '/_edit/wake' && event.httpMethod === 'POST') return wake(config, session);
  const live = session.state === 'ready' && Date.parse(session.leaseUntil) > Date.now();
  return live && allowed(session.containerIp) ? forward(event, session) : waiting(session);
}
