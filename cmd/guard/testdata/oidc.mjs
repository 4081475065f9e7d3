// An OpenID provider behind a proxy that ends TLS. Arguments: issuer, seconds that an access token lives.
const { default: Provider } = await import(process.env.CLIENTS + '/node_modules/oidc-provider/lib/index.js');
const [issuer, life] = process.argv.slice(2);
const device = 'urn:ietf:params:oauth:grant-type:device_code';
const provider = new Provider(issuer, {
	clients: [
		{ client_id: 'cli', token_endpoint_auth_method: 'none', application_type: 'native', grant_types: ['authorization_code', 'refresh_token', device],
			response_types: ['code'], redirect_uris: ['http://127.0.0.1/callback'] },
		{ client_id: 'fixed', token_endpoint_auth_method: 'none', application_type: 'web', grant_types: ['authorization_code'], response_types: ['code'],
			redirect_uris: ['https://only.example.com/callback'] },
	],
	features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
	cookies: { keys: ['of a test'] },
	rotateRefreshToken: true,
	ttl: { AccessToken: Number(life), RefreshToken: 3600, IdToken: 3600, Session: 600, Grant: 3600, Interaction: 600, DeviceCode: 600 },
});
provider.proxy = true;
const server = provider.listen(0, '127.0.0.1', () => console.log(server.address().port));
