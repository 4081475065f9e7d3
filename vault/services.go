package vault

import "slices"

// Service is a place where a person logs in with OAuth, and what its tokens are for.
type Service struct {
	Name, Title string
	// Issuer has its endpoints in its metadata (RFC 8414, OpenID Connect Discovery); "":
	// they are Authorize, Device and Token.
	Issuer                   string
	Authorize, Device, Token string
	Scopes                   []string
	Hosts                    []string // where its access tokens belong
	Env                      string
	// Confidential says that it wants a client secret also of programs on people's
	// machines.
	Confidential bool
	// DeviceFirst says that the code flow wants a secret and the device flow does not.
	DeviceFirst bool
	// Extra are parameters of the authorization request that make it give a refresh token.
	Extra map[string]string
	// Register says where a client id comes from.
	Register string
}

// Services returns the services that guard knows. guard has no client ids of its
// own: whoever logs in brings one (Register says from where).
func Services() []Service {
	return []Service{
		{Name: "github", Title: "GitHub", Authorize: "https://github.com/login/oauth/authorize", Device: "https://github.com/login/device/code", Token: "https://github.com/login/oauth/access_token",
			Scopes: []string{"repo"}, Hosts: []string{"api.github.com", "github.com", "uploads.github.com"}, Env: "GITHUB_TOKEN", DeviceFirst: true,
			Register: "https://github.com/settings/developers, with the device flow enabled"},
		{Name: "gitlab", Title: "GitLab", Issuer: "https://gitlab.com", Scopes: []string{"api"}, Hosts: []string{"gitlab.com"}, Env: "GITLAB_TOKEN",
			Register: "https://gitlab.com/-/user_settings/applications, not confidential"},
		{Name: "google", Title: "Google", Authorize: "https://accounts.google.com/o/oauth2/v2/auth", Device: "https://oauth2.googleapis.com/device/code", Token: "https://oauth2.googleapis.com/token",
			Issuer: "https://accounts.google.com", Scopes: []string{"openid", "email"}, Confidential: true, Extra: map[string]string{"access_type": "offline", "prompt": "consent"},
			Hosts: []string{"www.googleapis.com", "openidconnect.googleapis.com", "gmail.googleapis.com", "sheets.googleapis.com", "docs.googleapis.com", "storage.googleapis.com",
				"cloudresourcemanager.googleapis.com", "compute.googleapis.com", "bigquery.googleapis.com", "people.googleapis.com"},
			Register: "https://console.cloud.google.com/apis/credentials, of type desktop app"},
		{Name: "microsoft", Title: "Microsoft Graph", Authorize: "https://login.microsoftonline.com/common/oauth2/v2.0/authorize", Device: "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
			Token: "https://login.microsoftonline.com/common/oauth2/v2.0/token", Scopes: []string{"offline_access", "https://graph.microsoft.com/User.Read"}, Hosts: []string{"graph.microsoft.com"},
			Register: "https://entra.microsoft.com, a public client with http://localhost as its redirect"},
		{Name: "azure", Title: "Azure Resource Manager", Authorize: "https://login.microsoftonline.com/common/oauth2/v2.0/authorize", Device: "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
			Token: "https://login.microsoftonline.com/common/oauth2/v2.0/token", Scopes: []string{"offline_access", "https://management.azure.com/user_impersonation"}, Hosts: []string{"management.azure.com"},
			Register: "https://entra.microsoft.com, a public client with http://localhost as its redirect"},
	}
}

// ServiceByName finds a service.
func ServiceByName(name string) (Service, bool) {
	all := Services()
	i := slices.IndexFunc(all, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return all[i], true
}
