package aws

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/policy"
)

const (
	mintLife    = time.Hour
	mintBefore  = 5 * time.Minute // what ends sooner is asked for anew
	mintAgain   = 5 * time.Second // how long a refusal of STS is remembered
	maxPolicy   = 2048            // characters of a session policy (AssumeRole)
	federation  = "federation"
	maxMintBody = 256 << 10
)

// minted are the short-lived credentials that guard was given for its own.
type minted struct {
	mu  sync.Mutex
	all map[string]*mint
}

// mint is one; its lock is held while it is asked for.
type mint struct {
	mu      sync.Mutex
	value   guard.Secret // keys as JSON, or a token
	expires time.Time
	failed  error
	until   time.Time // no new try before
}

func (m *minted) get(key string) *mint {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]*mint{}
	}
	if m.all[key] == nil {
		m.all[key] = &mint{}
	}
	return m.all[key]
}

// use returns what m holds, asking by get for what is missing or ends soon.
func (m *mint) use(now time.Time, get func() (value []byte, expires time.Time, err error)) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now.Before(m.expires.Add(-mintBefore)) {
		return string(m.value.Reveal()), nil
	}
	if m.failed != nil && now.Before(m.until) {
		return "", m.failed
	}
	value, expires, err := get()
	if err != nil {
		m.failed, m.until = err, now.Add(mintAgain)
		return "", err
	}
	m.value.Wipe()
	m.value, m.expires, m.failed = guard.NewSecret(value), expires, nil
	return string(value), nil
}

// Close forgets, and wipes, what was minted.
func (s *Signer) Close() {
	s.minted.mu.Lock()
	defer s.minted.mu.Unlock()
	for _, m := range s.minted.all {
		m.mu.Lock()
		m.value.Wipe()
		m.expires = time.Time{}
		m.mu.Unlock()
	}
	s.minted.all = nil
}

// session returns the keys that c's requests are signed with: k, or, where --user has
// session=ROLE_ARN or session=federation, those of an STS session that may do no more
// than the scopes say.
func (s *Signer) session(ctx context.Context, c guard.Credential, k keys) (keys, error) {
	_, opts := Options(c.User)
	role := opts["session"]
	if role == "" {
		return k, nil
	}
	var scopes []policy.Scope
	if s.Scopes != nil {
		scopes = s.Scopes(c)
	}
	text, err := sessionPolicy(scopes)
	if err != nil {
		return k, err
	}
	sum := sha256.Sum256([]byte(k.id + "\n" + k.secret + "\n" + text + "\n" + c.User))
	m := s.minted.get(c.ID().String() + " " + hex.EncodeToString(sum[:8]))
	got, err := m.use(s.now(), func() ([]byte, time.Time, error) { return s.askSTS(ctx, c, opts, k, text) })
	if err != nil {
		return k, err
	}
	var out struct{ ID, Secret, Token string }
	if err := json.Unmarshal([]byte(got), &out); err != nil {
		return k, wrong("AccessDenied", "the session's keys cannot be read")
	}
	return keys{out.ID, out.Secret, out.Token}, nil
}

// askSTS asks for a session: AssumeRole for a role, else GetFederationToken.
func (s *Signer) askSTS(ctx context.Context, c guard.Credential, opts map[string]string, k keys, text string) ([]byte, time.Time, error) {
	if s.Client == nil {
		return nil, time.Time{}, wrong("AccessDenied", "this session cannot ask STS")
	}
	region := cmp.Or(opts["region"], "us-east-1")
	endpoint := cmp.Or(opts["sts"], "sts."+region+".amazonaws.com")
	form := url.Values{"Version": {"2011-06-15"}, "DurationSeconds": {fmt.Sprint(int(mintLife.Seconds()))}, "Policy": {text}}
	name := "guard-" + cmp.Or(s.Session, "session")
	if opts["session"] == federation {
		form.Set("Action", "GetFederationToken")
		form.Set("Name", name)
	} else {
		form.Set("Action", "AssumeRole")
		form.Set("RoleArn", opts["session"])
		form.Set("RoleSessionName", name)
	}
	body := form.Encode()
	ctx, cancel := contextOf(ctx)
	defer cancel()
	r, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, "https://"+endpoint+"/", strings.NewReader(body))
	if err != nil {
		return nil, time.Time{}, wrong("AccessDenied", "the STS endpoint of the credential is none")
	}
	now := s.now().UTC()
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	r.Header.Set("X-Amz-Date", now.Format(dateForm))
	sum := sha256.Sum256([]byte(body))
	sig := &signature{alg: algHMAC, id: k.id, scope: now.Format("20060102") + "/" + region + "/sts/aws4_request", region: region, service: "sts", signed: []string{"content-type", "host", "x-amz-date"}, date: now}
	if err := resign(r, sig, k, hex.EncodeToString(sum[:]), nil); err != nil {
		return nil, time.Time{}, err
	}
	status, b, err := s.ask(r)
	if err != nil {
		return nil, time.Time{}, wrong("ServiceUnavailable", "STS could not be asked for a session")
	}
	if status != nethttp.StatusOK {
		var e struct {
			Error struct{ Code string }
		}
		code := "no reason"
		if xml.Unmarshal(b, &e) == nil && word(e.Error.Code) {
			code = e.Error.Code
		}
		return nil, time.Time{}, wrong("AccessDenied", fmt.Sprintf("STS gave no session: status %d, %s", status, code))
	}
	type credentials struct {
		AccessKeyId, SecretAccessKey, SessionToken string
		Expiration                                 time.Time
	}
	var v struct {
		Assumed   credentials `xml:"AssumeRoleResult>Credentials"`
		Federated credentials `xml:"GetFederationTokenResult>Credentials"`
	}
	if err := xml.Unmarshal(b, &v); err != nil {
		return nil, time.Time{}, wrong("AccessDenied", "what STS answered cannot be read")
	}
	got := v.Assumed
	if got.AccessKeyId == "" {
		got = v.Federated
	}
	if got.AccessKeyId == "" || got.SecretAccessKey == "" || got.SessionToken == "" || !got.Expiration.After(now) {
		return nil, time.Time{}, wrong("AccessDenied", "what STS answered is no session")
	}
	s.tell(c, got.SecretAccessKey, got.SessionToken)
	out, err := json.Marshal(struct{ ID, Secret, Token string }{got.AccessKeyId, got.SecretAccessKey, got.SessionToken})
	return out, got.Expiration, err
}

// ask sends r and reads its answer.
func (s *Signer) ask(r *nethttp.Request) (int, []byte, error) {
	res, err := s.Client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxMintBody+1))
	if err == nil && len(b) > maxMintBody {
		err = errors.New("the answer is too long")
	}
	return res.StatusCode, b, err
}

// statement is one of a policy (IAM policy grammar).
type statement struct {
	Effect   string
	Action   []string
	Resource []string
}

// sessionPolicy is what scopes allow, in the words of IAM: no more than they do but
// where IAM's globs are wider (* goes over slashes there; guard itself decides on each
// request besides). What mints is denied.
func sessionPolicy(scopes []policy.Scope) (string, error) {
	var p struct {
		Version   string
		Statement []statement
	}
	p.Version = "2012-10-17"
	read, list := []string{"s3:GetObject*"}, []string{"s3:ListBucket*", "s3:GetBucket*", "s3:ListMultipartUploadParts"}
	put, del := []string{"s3:PutObject", "s3:PutObjectTagging", "s3:AbortMultipartUpload"}, []string{"s3:DeleteObject*"}
	all := len(scopes) == 0
	for _, sc := range scopes {
		var acts []string
		switch sc.Verb {
		case "s3:read", "read":
			acts = slices.Concat(read, list)
		case "s3:write", "write":
			acts = slices.Concat(read, list, put, del)
		case "s3:get":
			acts = read
		case "s3:list":
			acts = list
		case "s3:put":
			acts = put
		case "s3:delete":
			acts = del
		case "aws:use", "use":
			if sc.Glob == "" {
				all = true
				continue
			}
			if sc.Verb == "use" { // what a glob means depends on the service
				all = true
				continue
			}
			service, op, _ := strings.Cut(sc.Glob, "/")
			if op == "" || strings.ContainsAny(op, "/[") {
				op = "*"
			}
			if strings.ContainsAny(service, "[") || service == "**" {
				service = "*"
			}
			action := service + ":" + strings.ReplaceAll(op, "**", "*")
			if service == "*" {
				action = "*"
			}
			p.Statement = append(p.Statement, statement{"Allow", []string{action}, []string{"*"}})
			continue
		default:
			continue // not of AWS
		}
		p.Statement = append(p.Statement, statement{"Allow", acts, s3Resources(sc.Glob)})
	}
	if all {
		p.Statement = []statement{{"Allow", []string{"*"}, []string{"*"}}}
	}
	if len(p.Statement) == 0 {
		return "", wrong("AccessDenied", "no scope of this session is one of AWS")
	}
	p.Statement = append(p.Statement, statement{"Deny", []string{"sts:AssumeRole*", "sts:GetFederationToken", "sts:GetSessionToken", "iam:Create*", "iam:Update*", "iam:Upload*"}, []string{"*"}})
	b, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	if len(b) > maxPolicy {
		return "", wrong("AccessDenied", "the session's scopes do not fit into a session policy: name fewer")
	}
	return string(b), nil
}

// s3Resources are the ARNs of a glob over BUCKET/KEY.
func s3Resources(glob string) []string {
	if glob == "" || glob == "**" {
		return []string{"*"}
	}
	var b strings.Builder
	for i := 0; i < len(glob); i++ {
		switch c := glob[i]; c {
		case '[': // IAM has no classes
			if j := strings.IndexByte(glob[i:], ']'); j > 0 {
				i += j
			}
			b.WriteByte('*')
		case '\\', '$':
			b.WriteByte('*')
		default:
			b.WriteByte(c)
		}
	}
	g := strings.ReplaceAll(b.String(), "**", "*")
	bucket, _, has := strings.Cut(g, "/")
	out := []string{"arn:aws:s3:::" + bucket}
	if has {
		out = append(out, "arn:aws:s3:::"+g)
	}
	return out
}
