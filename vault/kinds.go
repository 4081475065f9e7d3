package vault

import (
	"bytes"
	"slices"
	"strings"

	"guard"
)

// Kind is a sort of credential: what guard fills in where the user says
// nothing, and how a placeholder for it looks.
type Kind struct {
	Name  string
	Title string
	Hosts []string // where its values belong; none: the user must say
	Env   string
	In    []guard.Position
	User  string // login name that goes with a token
	// Formats are the shapes of its values, the longest prefix first.
	Formats []Format
	// Schemes are those of URLs that hold such a credential, URLEnv the
	// variable for one, and Port what it means where it names none.
	Schemes []string
	URLEnv  string
	Port    string
	// Model says that the hosts are a model's API, and ModelURL names the variables that
	// lead programs to another one.
	Model    bool
	ModelURL []string
}

// Format is a shape of values, and the template of their placeholders.
type Format struct {
	Prefix   string // kept
	Alphabet string // of the rest; Keep's characters besides
	Keep     string // characters that stay where they are; runs of digits between them stay digits
	Check    Checksum
}

const (
	digits = "0123456789"
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	base62 = digits + upper + lower
	hexa   = "0123456789abcdef"
	b64url = base62 + "-_"
)

// Kinds returns the kinds that guard knows. Hosts are only those that are the
// issuer's own and take the credential: a wildcard over a domain on which
// anyone can have a name would hand it to them.
func Kinds() []Kind {
	auth := guard.Position{Place: "auth"}
	header := func(name string) guard.Position { return guard.Position{Place: "header", Name: name} }
	frame := []guard.Position{{Place: "frame"}}
	return []Kind{
		{Name: "generic", Title: "any secret"},
		{Name: "github-pat", Title: "GitHub token", Env: "GITHUB_TOKEN", In: []guard.Position{auth},
			Hosts: []string{"api.github.com", "github.com", "uploads.github.com"},
			Formats: []Format{
				{Prefix: "github_pat_", Alphabet: base62, Keep: "_", Check: GitHubFineGrained},
				{Prefix: "ghp_", Alphabet: base62, Check: CRC32Base62},
				{Prefix: "gho_", Alphabet: base62, Check: CRC32Base62},
				{Prefix: "ghu_", Alphabet: base62, Check: CRC32Base62},
				{Prefix: "ghs_", Alphabet: base62, Check: CRC32Base62},
				{Prefix: "ghr_", Alphabet: base62, Check: CRC32Base62},
			}},
		{Name: "gitlab-pat", Title: "GitLab token", Env: "GITLAB_TOKEN", Hosts: []string{"gitlab.com"},
			In: []guard.Position{header("PRIVATE-TOKEN"), auth},
			Formats: []Format{
				{Prefix: "glpat-", Alphabet: b64url, Keep: ".", Check: GitLabRoutable},
				{Prefix: "gldt-", Alphabet: b64url}, {Prefix: "glrt-", Alphabet: b64url}, {Prefix: "glptt-", Alphabet: b64url},
			}},
		{Name: "anthropic", Model: true, ModelURL: []string{"ANTHROPIC_BASE_URL"}, Title: "Anthropic API key", Env: "ANTHROPIC_API_KEY", Hosts: []string{"api.anthropic.com"},
			In: []guard.Position{header("x-api-key"), auth},
			Formats: []Format{
				{Prefix: "sk-ant-admin01-", Alphabet: b64url}, {Prefix: "sk-ant-api03-", Alphabet: b64url},
				{Prefix: "sk-ant-oat01-", Alphabet: b64url}, {Prefix: "sk-ant-", Alphabet: b64url},
			}},
		{Name: "openrouter", Model: true, Title: "OpenRouter API key", Env: "OPENROUTER_API_KEY", Hosts: []string{"openrouter.ai"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "sk-or-v1-", Alphabet: hexa}}},
		{Name: "openai", Model: true, ModelURL: []string{"OPENAI_BASE_URL", "OPENAI_API_BASE"}, Title: "OpenAI API key", Env: "OPENAI_API_KEY", Hosts: []string{"api.openai.com"},
			In: []guard.Position{auth},
			Formats: []Format{
				{Prefix: "sk-svcacct-", Alphabet: b64url}, {Prefix: "sk-admin-", Alphabet: b64url},
				{Prefix: "sk-proj-", Alphabet: b64url}, {Prefix: "sk-", Alphabet: b64url},
			}},
		{Name: "google-ai", Model: true, ModelURL: []string{"GOOGLE_GEMINI_BASE_URL"}, Title: "Google AI API key", Env: "GEMINI_API_KEY", Hosts: []string{"generativelanguage.googleapis.com"},
			In: []guard.Position{header("x-goog-api-key")}, Formats: []Format{{Prefix: "AIza", Alphabet: b64url}}},
		{Name: "groq", Model: true, Title: "Groq API key", Env: "GROQ_API_KEY", Hosts: []string{"api.groq.com"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "gsk_", Alphabet: base62}}},
		{Name: "huggingface", Title: "Hugging Face token", Env: "HF_TOKEN", Hosts: []string{"huggingface.co"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "hf_", Alphabet: base62}}},
		{Name: "npm", Title: "npm token", Env: "NPM_TOKEN", Hosts: []string{"registry.npmjs.org"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "npm_", Alphabet: base62, Check: CRC32Base62}}},
		{Name: "pypi", Title: "PyPI token", Env: "TWINE_PASSWORD", User: "__token__", Hosts: []string{"upload.pypi.org"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "pypi-AgEIcHlwaS5vcmc", Alphabet: b64url}, {Prefix: "pypi-", Alphabet: b64url}}},
		{Name: "slack-bot", Title: "Slack token", Env: "SLACK_BOT_TOKEN", Hosts: []string{"slack.com", "files.slack.com"},
			In: []guard.Position{auth},
			Formats: []Format{
				{Prefix: "xoxb-", Alphabet: base62, Keep: "-"}, {Prefix: "xoxp-", Alphabet: base62, Keep: "-"},
				{Prefix: "xapp-", Alphabet: base62, Keep: "-"},
			}},
		{Name: "stripe", Title: "Stripe secret key", Env: "STRIPE_API_KEY", Hosts: []string{"api.stripe.com"},
			In: []guard.Position{auth},
			Formats: []Format{
				{Prefix: "sk_live_", Alphabet: base62}, {Prefix: "sk_test_", Alphabet: base62},
				{Prefix: "rk_live_", Alphabet: base62}, {Prefix: "rk_test_", Alphabet: base62},
			}},
		{Name: "sendgrid", Title: "SendGrid API key", Env: "SENDGRID_API_KEY", Hosts: []string{"api.sendgrid.com"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "SG.", Alphabet: b64url, Keep: "."}}},
		{Name: "digitalocean", Title: "DigitalOcean token", Env: "DIGITALOCEAN_ACCESS_TOKEN", Hosts: []string{"api.digitalocean.com"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "dop_v1_", Alphabet: hexa}}},
		{Name: "cloudflare", Title: "Cloudflare API token", Env: "CLOUDFLARE_API_TOKEN", Hosts: []string{"api.cloudflare.com"},
			In: []guard.Position{auth}},
		{Name: "linear", Title: "Linear API key", Env: "LINEAR_API_KEY", Hosts: []string{"api.linear.app"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "lin_api_", Alphabet: base62}}},
		{Name: "docker-hub", Title: "Docker Hub token", Env: "DOCKERHUB_TOKEN", Hosts: []string{"hub.docker.com", "auth.docker.io"},
			In: []guard.Position{auth}, Formats: []Format{{Prefix: "dckr_pat_", Alphabet: b64url}, {Prefix: "dckr_oat_", Alphabet: b64url}}},
		// What an issuer gave to a login in a session; its hosts are the issuer's.
		{Name: "oauth", Title: "token of a login", In: []guard.Position{auth}},
		// An AWS secret key signs and is never sent, so that all of the domain may be its
		// hosts: package broker/aws has no header carry it, and leaves out names that are
		// given to customers. Its user is the access key id.
		{Name: kindAWS, Title: "AWS secret access key (--user is its access key id)", Env: "AWS_SECRET_ACCESS_KEY", Hosts: []string{"*.amazonaws.com", "*.api.aws"}},
		// A service account's key signs too: for access tokens, which guard asks for.
		{Name: kindGCP, Title: "Google Cloud service account key (JSON)", Hosts: []string{"*.googleapis.com"}},
		// The client secret goes to the token endpoint alone; what that gives out is kept.
		{Name: "azure-app", Title: "Azure application's client secret", Env: "AZURE_CLIENT_SECRET", Hosts: []string{"login.microsoftonline.com"},
			In: []guard.Position{{Place: "form", Name: "client_secret"}, {Place: "basic"}}},
		{Name: "kube", Title: "Kubernetes bearer token", In: []guard.Position{auth}},
		{Name: "postgres", Title: "PostgreSQL password or URL", Env: "PGPASSWORD", In: frame,
			Schemes: []string{"postgres", "postgresql"}, URLEnv: "DATABASE_URL", Port: "5432"},
		{Name: "mysql", Title: "MySQL password or URL", Env: "MYSQL_PWD", In: frame,
			Schemes: []string{"mysql", "mariadb"}, URLEnv: "DATABASE_URL", Port: "3306"},
		{Name: "redis", Title: "Redis password or URL", Env: "REDISCLI_AUTH", In: frame,
			Schemes: []string{"redis", "rediss"}, URLEnv: "REDIS_URL", Port: "6379"},
		{Name: "mongodb", Title: "MongoDB password or URL", Env: "MONGODB_PASSWORD", In: frame,
			Schemes: []string{"mongodb"}, URLEnv: "MONGODB_URI", Port: "27017"},
		{Name: "smtp", Title: "password or token for sending mail (SMTP)", Env: "SMTP_PASSWORD", In: frame,
			Schemes: []string{"smtp"}, URLEnv: "SMTP_URL", Port: "587"},
		{Name: "imap", Title: "password or token for reading mail (IMAP)", Env: "IMAP_PASSWORD", In: frame,
			Schemes: []string{"imap", "imaps"}, URLEnv: "IMAP_URL", Port: "993"},
		// Private keys sign in guard's agent and are never sent: like those of AWS they are in no header.
		{Name: kindSSHKey, Title: "SSH private key (ssh-agent in sessions)"},
		{Name: kindSSHCA, Title: "SSH certificate authority for users (short-lived certificates in sessions)"},
	}
}

// KindByName finds a kind.
func KindByName(name string) (Kind, bool) {
	ks := Kinds()
	i := slices.IndexFunc(ks, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return ks[i], true
}

// IsKeyFile says that values of a kind are files of several lines, which nobody types.
func IsKeyFile(kind string) bool {
	return kind == kindSSHKey || kind == kindSSHCA || kind == kindGCP
}

// GuessKind names the kind whose values start as s does, or "generic".
func GuessKind(s guard.Secret) string { return guessKind(s.Reveal()) }

func guessKind(plain []byte) string {
	if k, _, ok := match(plain); ok {
		return k.Name
	}
	if bytes.HasPrefix(plain, []byte("-----BEGIN OPENSSH PRIVATE KEY-----")) {
		return kindSSHKey
	}
	if scheme, _, ok := bytes.Cut(plain, []byte("://")); ok {
		for _, k := range Kinds() {
			if slices.Contains(k.Schemes, strings.ToLower(string(scheme))) {
				return k.Name
			}
		}
	}
	return "generic"
}

// match finds the format with the longest prefix that plain fits, and whose
// rest is long enough to be worth hiding.
func match(plain []byte) (Kind, Format, bool) {
	var kind Kind
	var format Format
	found := false
	for _, k := range Kinds() {
		for _, f := range k.Formats {
			rest, ok := bytes.CutPrefix(plain, []byte(f.Prefix))
			if ok && len(rest) >= minValue && len(f.Prefix) > len(format.Prefix) && all(rest, f.Alphabet+f.Keep) {
				kind, format, found = k, f, true
			}
		}
	}
	return kind, format, found
}

func all(b []byte, alphabet string) bool {
	for _, c := range b {
		if strings.IndexByte(alphabet, c) < 0 {
			return false
		}
	}
	return true
}

// defaults is what a kind says about a value: for a URL, the place that the
// URL names.
func defaults(kind string, plain []byte) guard.Credential {
	k, _ := KindByName(kind)
	c := guard.Credential{Hosts: k.Hosts, Env: k.Env, In: k.In, User: k.User}
	if user, _ := keyFile(kind, plain); user != "" {
		c.User = user
	}
	u, ok := splitURL(plain)
	if !ok || !slices.Contains(k.Schemes, strings.ToLower(string(plain[:u.scheme]))) {
		return c
	}
	c.Env = k.URLEnv
	if user, _, ok := bytes.Cut(plain[u.user:u.userEnd], []byte(":")); ok {
		c.User = string(user)
	}
	c.Hosts = nil
	for host := range strings.SplitSeq(string(plain[u.host:u.hostEnd]), ",") {
		if colon := strings.LastIndexByte(host, ':'); colon < 0 || strings.HasSuffix(host, "]") {
			host += ":" + k.Port
		}
		if hostPattern.MatchString(host) {
			c.Hosts = append(c.Hosts, host)
		}
	}
	return c
}

// PrefixLength is how many bytes at the start of a value are its format's public
// prefix, such as 4 for ghp_; 0 for a value of no known format.
func PrefixLength(s guard.Secret) int {
	_, f, ok := match(s.Reveal())
	if !ok {
		return 0
	}
	return len(f.Prefix)
}
