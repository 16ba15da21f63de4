// Makes a key, verifies it, rotates a root key and lets a key expire, against a running ostiary.
//
// OSTIARY_ADDRESS is HOST:PORT or unix:PATH, OSTIARY_ROOT_KEY a root key that may do all of this.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const { OSTIARY_ADDRESS: address, OSTIARY_ROOT_KEY: adminKey } = process.env;
const protos = process.env.OSTIARY_PROTOS ?? fileURLToPath(new URL('../../proto', import.meta.url));

const definition = await protoLoader.load(
  ['ostiary/v1/apis.proto', 'ostiary/v1/keys.proto', 'ostiary/v1/root_keys.proto'],
  { includeDirs: [protos], enums: String, longs: String, defaults: true, oneofs: true },
);
const ostiary = grpc.loadPackageDefinition(definition).ostiary.v1;

// For unix:PATH the authority is `localhost` by itself in Node; nothing has to be set.
const credentials = grpc.credentials.createInsecure();
const apis = new ostiary.ApiService(address, credentials);
const keys = new ostiary.KeyService(address, credentials);
const rootKeys = new ostiary.RootKeyService(address, credentials);

// Calls a method with a root key, and promises the answer.
function call(client, method, request, rootKey) {
  const metadata = new grpc.Metadata();
  metadata.set('authorization', `Bearer ${rootKey}`);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline: Date.now() + 30_000 }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    );
  });
}

async function expectVerdict(want, secret, apiId, rootKey) {
  const { verdict } = await call(keys, 'verifyKey', { key: secret, apiId }, rootKey);
  assert.equal(verdict.code, `VERIFICATION_CODE_${want}`);
  console.log('the key verifies as', want);
}

// An API, and a key of it for a customer.
const { api } = await call(apis, 'createApi', { name: 'example in Node' }, adminKey);
const { apiId } = api;
const made = [];
try {
  const key = await call(keys, 'createKey', { apiId, name: 'customer 42' }, adminKey);

  // A root key that may verify keys of this API and nothing else, as a server of yours would hold it.
  const permissions = [`apis.${apiId}.verify_key`];
  const name = 'server of the example in Node';
  const server = await call(rootKeys, 'createRootKey', { name, permissions }, adminKey);
  const { rootKeyId } = server.rootKey;
  made.push(rootKeyId);
  await expectVerdict('VALID', key.secret, apiId, server.secret);

  // Its successor. The old root key works on for one second.
  const second = { seconds: 1 };
  const rotated = await call(rootKeys, 'rotateRootKey', { rootKeyId, gracePeriod: second }, adminKey);
  made.push(rotated.rootKey.rootKeyId);

  // A key that lives one second, the shortest life there is.
  const brief = await call(keys, 'createKey', { apiId, ttl: second }, adminKey);

  await sleep(1500);

  await assert.rejects(call(keys, 'verifyKey', { key: key.secret, apiId }, server.secret), (error) => {
    assert.equal(error.code, grpc.status.UNAUTHENTICATED);
    console.log('the old root key is refused:', error.details);
    return true;
  });
  await expectVerdict('VALID', key.secret, apiId, rotated.secret);
  await expectVerdict('EXPIRED', brief.secret, apiId, rotated.secret);
} finally {
  if (made.length > 0) {
    await call(rootKeys, 'batchDeleteRootKeys', { rootKeyIds: made }, adminKey);
  }
  await call(apis, 'deleteApi', { apiId }, adminKey);
  for (const client of [apis, keys, rootKeys]) {
    client.close();
  }
}
