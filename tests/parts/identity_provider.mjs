// An identity provider: npm's oidc-provider. Prints its port, and then a line for each time that its keys are fetched.
//
// POST /control/keys with key names in the body, as in `new old`: these are its keys from now on, and the first signs.
// Clients: `app` gets tokens (signed ones for the resource urn:api, opaque ones else), `gateway` may introspect.

import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';

import Provider from 'oidc-provider';

const known = new Map();

function key(name) {
  if (!known.has(name)) {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    known.set(name, { ...privateKey.export({ format: 'jwk' }), kid: name, alg: 'ES256', use: 'sig' });
  }
  return known.get(name);
}

function provider(issuer, names) {
  const client = (client_id) => ({
    client_id,
    client_secret: `secret of ${client_id}`,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  });
  return new Provider(issuer, {
    clients: [client('app'), client('gateway')],
    jwks: { keys: names.map(key) },
    // No ID tokens are made, and RS256 would need a key of RSA.
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    scopes: ['read', 'write'],
    ttl: { ClientCredentials: 600 },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: (ctx, client) => client.clientId === 'gateway' },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          scope: 'read write',
          audience: 'urn:api',
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  });
}

let issuer;
let current;

const server = createServer((request, response) => {
  if (request.url === '/control/keys') {
    let body = '';
    request.on('data', (part) => { body += part; });
    request.on('end', () => {
      current = provider(issuer, body.split(' ')).callback();
      response.end('ok\n');
    });
    return;
  }
  if (request.url === '/jwks') {
    response.on('finish', () => console.log('keys'));
  }
  current(request, response);
});

server.listen(0, '127.0.0.1', () => {
  issuer = `http://127.0.0.1:${server.address().port}`;
  current = provider(issuer, ['first']).callback();
  console.log(server.address().port);
});
