package aws

import (
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/policy"
)

// fakeSTS answers as STS does: it verifies who asks, wants a policy that is JSON, and
// gives out keys that the tests know.
type fakeSTS struct {
	t     *testing.T
	mu    sync.Mutex
	asked []url.Values
	fail  string // a code of AWS's
	life  time.Duration
	now   func() time.Time
}

func (f *fakeSTS) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	answer := func(status int, body string) (*nethttp.Response, error) {
		return &nethttp.Response{StatusCode: status, Header: nethttp.Header{"Content-Type": {"text/xml"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	refuse := func(code string) (*nethttp.Response, error) {
		return answer(403, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>`+code+`</Code><Message>no</Message></Error><RequestId>x</RequestId></ErrorResponse>`)
	}
	body, err := server(f.t, r, realID, realSecret())
	if err != nil {
		return refuse("SignatureDoesNotMatch")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return refuse("MalformedQueryString")
	}
	f.asked = append(f.asked, form)
	if f.fail != "" {
		return refuse(f.fail)
	}
	var p struct {
		Version   string
		Statement []struct {
			Effect           string
			Action, Resource []string
		}
	}
	if json.Unmarshal([]byte(form.Get("Policy")), &p) != nil || p.Version != "2012-10-17" || len(form.Get("Policy")) > 2048 {
		return refuse("MalformedPolicyDocument")
	}
	if n := form.Get("DurationSeconds"); n != "3600" || form.Get("Version") != "2011-06-15" {
		return refuse("ValidationError")
	}
	op := form.Get("Action")
	switch {
	case op == "AssumeRole" && strings.HasPrefix(form.Get("RoleArn"), "arn:aws:iam::") && form.Get("RoleSessionName") != "":
	case op == "GetFederationToken" && form.Get("Name") != "" && len(form.Get("Name")) <= 32:
	default:
		return refuse("ValidationError")
	}
	return answer(200, fmt.Sprintf(`<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%sResult><Credentials><AccessKeyId>SESSION%d</AccessKeyId><SecretAccessKey>session-secret</SecretAccessKey><SessionToken>session-token</SessionToken><Expiration>%s</Expiration></Credentials></%sResult></%sResponse>`,
		op, op, len(f.asked), f.now().Add(f.life).UTC().Format(time.RFC3339), op, op))
}

// signOnce signs one request with a session's keys, and says by which.
func signOnce(t *testing.T, s *Signer, user string, now time.Time) (id string, err error) {
	t.Helper()
	a := newAgent()
	a.at = now
	r := request(t, "GET", "https://s3.test/data/a", map[string]string{"X-Amz-Content-Sha256": emptySum}, "")
	a.sign(t, r, emptySum)
	w := wrap(r)
	w.Creds[0].User = user
	g := s.Sign(w)
	if g == nil || g.Refused != nil {
		t.Fatalf("%+v", g)
	}
	if err := g.Apply(r, realSecret()); err != nil {
		return "", err
	}
	sig, err := parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if r.Header.Get("X-Amz-Security-Token") != "session-token" {
		t.Error("no session token")
	}
	if _, err := server(t, r, sig.id, "session-secret"); err != nil {
		t.Error(err)
	}
	return sig.id, nil
}

// A session is asked for with a policy that says what the scopes do, once, and again
// five minutes before it ends.
func TestSTSSession(t *testing.T) {
	now := testNow()
	clock := func() time.Time { return now }
	sts := &fakeSTS{t: t, life: time.Hour, now: clock}
	s := newSigner()
	s.Now, s.Client, s.Session = clock, &nethttp.Client{Transport: sts}, "20260102T030405Z-0123456789"
	var scopes []policy.Scope
	for _, text := range []string{"s3:read/data/in/**", "aws:use/sts/Get*"} {
		sc, err := policy.ParseScope(text)
		if err != nil {
			t.Fatal(err)
		}
		scopes = append(scopes, sc)
	}
	s.Scopes = func(guard.Credential) []policy.Scope { return scopes }
	const role = realID + ",session=arn:aws:iam::123456789012:role/agent"
	for i, step := range []struct {
		later time.Duration
		want  string
	}{{0, "SESSION1"}, {0, "SESSION1"}, {54 * time.Minute, "SESSION1"}, {2 * time.Minute, "SESSION2"}, {time.Hour, "SESSION3"}} {
		now = now.Add(step.later)
		if id, err := signOnce(t, s, role, now); err != nil || id != step.want {
			t.Fatalf("step %d: %s, %v", i, id, err)
		}
	}
	const want = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject*","s3:ListBucket*","s3:GetBucket*","s3:ListMultipartUploadParts"],"Resource":["arn:aws:s3:::data","arn:aws:s3:::data/in/*"]},` +
		`{"Effect":"Allow","Action":["sts:Get*"],"Resource":["*"]},{"Effect":"Deny","Action":["sts:AssumeRole*","sts:GetFederationToken","sts:GetSessionToken","iam:Create*","iam:Update*","iam:Upload*"],"Resource":["*"]}]}`
	first := sts.asked[0]
	if got := first.Get("Policy"); got != want {
		t.Errorf("policy\n%s\nwant\n%s", got, want)
	}
	if first.Get("Action") != "AssumeRole" || first.Get("RoleArn") != "arn:aws:iam::123456789012:role/agent" {
		t.Errorf("%v", first)
	}
	// Another scope is another session, and a federation token is one too.
	scopes = scopes[:1]
	if id, err := signOnce(t, s, role, now); err != nil || id != "SESSION4" {
		t.Errorf("%s, %v", id, err)
	}
	s.Session = "short"
	if id, err := signOnce(t, s, realID+",session=federation,region=eu-west-1", now); err != nil || id != "SESSION5" || sts.asked[4].Get("Action") != "GetFederationToken" {
		t.Errorf("%s, %v", id, err)
	}
	s.Close()
	if len(s.minted.all) != 0 {
		t.Error("something is kept")
	}
}

// What STS refuses is not signed with the stored key instead, and not asked again at once.
func TestSTSRefuses(t *testing.T) {
	now := testNow()
	sts := &fakeSTS{t: t, life: time.Hour, now: func() time.Time { return now }, fail: "AccessDenied"}
	s := newSigner()
	s.Now, s.Client = sts.now, &nethttp.Client{Transport: sts}
	const role = realID + ",session=arn:aws:iam::123456789012:role/agent"
	for range 3 {
		_, err := signOnce(t, s, role, now)
		if ref, ok := err.(*Refused); !ok || !strings.Contains(ref.Decision.Reason, "STS gave no session: status 403, AccessDenied") {
			t.Fatal(err)
		}
	}
	if len(sts.asked) != 1 {
		t.Errorf("asked %d times", len(sts.asked))
	}
	now = now.Add(mintAgain)
	sts.fail = ""
	if id, err := signOnce(t, s, role, now); err != nil || id != "SESSION2" {
		t.Errorf("%s, %v", id, err)
	}
	// A session that has ended by the time it comes is none.
	s.Close()
	sts.life = -time.Minute
	if _, err := signOnce(t, s, role, now); err == nil {
		t.Error("a session that has ended was used")
	}
	s.Close()
	s.Scopes = func(guard.Credential) []policy.Scope { return []policy.Scope{{Verb: "repo:push"}} }
	if _, err := signOnce(t, s, role, now); err == nil {
		t.Error("a session with a scope that is not of AWS")
	}
}

func TestSessionPolicies(t *testing.T) {
	for scope, want := range map[string][]string{
		"s3:put/data/*":       {`"s3:PutObject"`, `"arn:aws:s3:::data/*"`, "!s3:GetObject", "!s3:DeleteObject"},
		"s3:get/d[ab]ta/x/?y": {`"arn:aws:s3:::d*ta/x/?y"`, "!ListBucket"},
		"s3:list":             {`"s3:ListBucket*"`, `"Resource":["*"]`, "!PutObject"},
		"s3:delete/a":         {`"s3:DeleteObject*"`, `"Resource":["arn:aws:s3:::a"]`},
		"s3:write/**":         {`"s3:PutObject"`, `"Resource":["*"]`},
		"aws:use/iam/**":      {`"iam:*"`, `"Deny"`},
		"aws:use":             {`"Action":["*"]`, `"Deny"`},
		"use":                 {`"Action":["*"]`, `"Deny"`},
	} {
		sc, err := policy.ParseScope(scope)
		if err != nil {
			t.Fatal(err)
		}
		got, err := sessionPolicy([]policy.Scope{sc})
		if err != nil {
			t.Errorf("%s: %v", scope, err)
		}
		for _, w := range want {
			bare, not := strings.CutPrefix(w, "!")
			if strings.Contains(got, bare) == not {
				t.Errorf("%s: %s: %s", scope, w, got)
			}
		}
	}
	long := make([]policy.Scope, 100)
	for i := range long {
		long[i] = policy.Scope{Verb: "s3:read", Glob: strings.Repeat("b", 50)}
	}
	if _, err := sessionPolicy(long); err == nil {
		t.Error("a policy that STS would not take")
	}
}
