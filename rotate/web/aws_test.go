package web

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

// The vector "post-vanilla" of AWS's Signature Version 4 test suite.
func TestAWSSignature(t *testing.T) {
	a := aws{base: "https://example.amazonaws.com", service: "service", region: "us-east-1"}
	secret := "wJalrXUtnFEMI/" + "K7MDENG+bPxRfiCY" + "EXAMPLEKEY"
	r := a.sign(awsKeys{id: "AKIDEXAMPLE", secret: secret}, url.Values{}, time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC))
	if got := r.header["Authorization"]; !strings.HasSuffix(got, "Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b") {
		t.Error(got)
	}
}

const adminID = "AKIAADMINADMINADMIN2"

// awsSigned checks a request's signature with secret, by its own SignedHeaders.
func awsSigned(r *http.Request, body, secret string) bool {
	auth := r.Header.Get("Authorization")
	field := func(name string) string {
		_, rest, _ := strings.Cut(auth, name+"=")
		v, _, _ := strings.Cut(rest, ",")
		return v
	}
	_, scope, _ := strings.Cut(field("Credential"), "/")
	lines := ""
	for h := range strings.SplitSeq(field("SignedHeaders"), ";") {
		v := r.Header.Get(h)
		if h == "host" {
			v = r.Host
		}
		lines += h + ":" + v + "\n"
	}
	hash := func(s string) string { b := sha256.Sum256([]byte(s)); return hex.EncodeToString(b[:]) }
	canonical := r.Method + "\n" + r.URL.EscapedPath() + "\n" + r.URL.RawQuery + "\n" + lines + "\n" + field("SignedHeaders") + "\n" + hash(body)
	key := []byte("AWS4" + secret)
	for part := range strings.SplitSeq(scope, "/") {
		key = awsMAC(key, part)
	}
	date := r.Header.Get("X-Amz-Date")
	return field("Signature") == hex.EncodeToString(awsMAC(key, "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hash(canonical)))
}

// awsRole is what a fake knows of a role's sessions.
type awsRole struct {
	denied time.Time // those that are older are
	from   int       // the next session's number
}

// awsFake is IAM and STS. An owner is an IAM user or a role.
func awsFake(roles map[string]*awsRole) func(*wire, http.ResponseWriter, *http.Request) {
	return func(w *wire, rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(b))
		fail := func(status int, code, message string) {
			rw.WriteHeader(status)
			fmt.Fprintf(rw, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>", code, message)
		}
		action := form.Get("Action")
		id, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="), "/")
		at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
		now := time.Now().Add(w.skew)
		if err != nil || now.Sub(at).Abs() > 15*time.Minute {
			fail(http.StatusForbidden, "RequestTimeTooSkewed", "")
			return
		}
		secret := "the/secret+of+the+admin+of+AWS/0123456789"
		var who *issued
		if id != adminID {
			for _, v := range w.all {
				if v.id == id {
					who = w.live(v.value)
				}
			}
			if who == nil {
				fail(http.StatusForbidden, "InvalidClientTokenId", "The security token included in the request is invalid.")
				return
			}
			_, secret, _ = strings.Cut(who.value, ":")
			token := ""
			secret, token, _ = strings.Cut(secret, ":")
			if token != r.Header.Get("X-Amz-Security-Token") {
				fail(http.StatusForbidden, "InvalidClientTokenId", "")
				return
			}
		}
		if !awsSigned(r, string(b), secret) {
			fail(http.StatusForbidden, "SignatureDoesNotMatch", "")
			return
		}
		if who != nil {
			who.used = true
		}
		role := roles[form.Get("RoleName")]
		if who != nil && strings.HasPrefix(who.owner, "role") {
			role = roles[who.owner]
		}
		switch {
		case action == "GetCallerIdentity":
			io.WriteString(rw, "<GetCallerIdentityResponse/>") // no policy can deny it
			return
		case who != nil && role != nil && who.created.Before(role.denied):
			fail(http.StatusForbidden, "AccessDenied", "User is not authorized to perform: "+action+" with an explicit deny in an identity-based policy")
			return
		case who != nil:
			fail(http.StatusForbidden, "AccessDenied", "User is not authorized to perform: "+action+" because no identity-based policy allows it")
			return
		}
		user := form.Get("UserName")
		key := w.byID(form.Get("AccessKeyId"))
		if key == nil && form.Has("AccessKeyId") {
			fail(http.StatusNotFound, "NoSuchEntity", "")
			return
		}
		switch action {
		case "CreateAccessKey":
			if w.refuse || len(w.of(user)) >= 2 {
				fail(http.StatusConflict, "LimitExceeded", "Cannot exceed quota for AccessKeysPerUser: 2")
				return
			}
			v := awsKeyOf(w, user, "")
			id, secret, _ := strings.Cut(v.value, ":")
			fmt.Fprintf(rw, "<CreateAccessKeyResponse><CreateAccessKeyResult><AccessKey><UserName>%s</UserName><AccessKeyId>%s</AccessKeyId><Status>Active</Status><SecretAccessKey>%s</SecretAccessKey></AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>", user, id, secret)
		case "ListAccessKeys":
			page, next := w.paged(w.of(user), form.Get("Marker"))
			io.WriteString(rw, "<ListAccessKeysResponse><ListAccessKeysResult><AccessKeyMetadata>")
			for _, v := range page {
				status := "Active"
				if v.idle {
					status = "Inactive"
				}
				fmt.Fprintf(rw, "<member><UserName>%s</UserName><AccessKeyId>%s</AccessKeyId><Status>%s</Status></member>", user, v.id, status)
			}
			fmt.Fprintf(rw, "</AccessKeyMetadata><IsTruncated>%v</IsTruncated><Marker>%s</Marker></ListAccessKeysResult></ListAccessKeysResponse>", next != "", next)
		case "GetAccessKeyLastUsed":
			date := ""
			if key.used {
				date = "<LastUsedDate>2026-11-01T00:00:00Z</LastUsedDate>"
			}
			fmt.Fprintf(rw, "<GetAccessKeyLastUsedResponse><GetAccessKeyLastUsedResult><AccessKeyLastUsed>%s<ServiceName>N/A</ServiceName></AccessKeyLastUsed></GetAccessKeyLastUsedResult></GetAccessKeyLastUsedResponse>", date)
		case "UpdateAccessKey":
			if !w.lie {
				if key.idle = form.Get("Status") == "Inactive"; key.idle {
					key.ended = time.Now()
				}
			}
			io.WriteString(rw, "<UpdateAccessKeyResponse/>")
		case "DeleteAccessKey":
			w.end(key)
			io.WriteString(rw, "<DeleteAccessKeyResponse/>")
		default:
			awsRoleCall(w, rw, form, role, now, fail)
		}
	}
}

func awsKeyOf(w *wire, owner, name string) *issued {
	v := w.give(owner, name, "")
	v.id = fmt.Sprintf("AKIA%016s", strings.NewReplacer("0", "A", "1", "B", "8", "C", "9", "D").Replace(v.id))
	v.id = strings.ReplaceAll(v.id, "0", "Q")
	v.value = v.id + ":" + w.rand("wJ+/")
	return v
}

func awsIssuer(t *testing.T, shape string) theIssuer {
	w := serve(t, awsFake(nil))
	return theIssuer{
		name: "aws-iam", provider: AWSIAM{}, wire: w, kind: "aws", spec: "admin=root,user=OWNER,url=URL,sts=URL",
		first: func(owner string) string {
			v := awsKeyOf(w, owner, "first").value
			id, secret, _ := strings.Cut(v, ":")
			switch shape {
			case "json":
				return `{"AccessKeyId":"` + id + `","SecretAccessKey":"` + secret + `"}`
			case "bare":
				return secret
			}
			return v
		},
		credential: func(c *guard.Credential, owner string) {
			for _, v := range w.all {
				if v.owner == owner && v.name == "first" && shape == "bare" {
					c.User = v.id + ",region=eu-west-1"
				}
			}
		},
		others: []rotatetest.Other{{Credential: guard.Credential{Name: "root", Kind: "aws", User: adminID}, Value: "the/secret+of+the+admin+of+AWS/0123456789"}},
		try: func(base, owner, value string) (*http.Response, error) {
			if shape == "bare" && bare(value) {
				for _, v := range w.all {
					if strings.HasSuffix(v.value, ":"+value) {
						value = v.value
					}
				}
			}
			k, err := awsKeysOf(value, "")
			if err != nil {
				return nil, err
			}
			a := aws{asked{&Client{}, rotate.Job{}}, base, "sts", "us-east-1", "2011-06-15", new(time.Duration)}
			q := a.sign(k, url.Values{"Action": {"GetCallerIdentity"}, "Version": {a.version}}, time.Now())
			r, err := http.NewRequest(q.method, q.url, strings.NewReader(q.form.Encode()))
			if err != nil {
				return nil, err
			}
			for k, v := range q.header {
				r.Header.Set(k, v)
			}
			return http.DefaultClient.Do(r)
		},
		refused: func(status int) bool { return status == http.StatusForbidden },
	}
}

func TestAWSIAMConformance(t *testing.T) {
	t.Parallel()
	rotatetest.Test(t, awsIssuer(t, "").open())
}

func TestAWSIAMKnobs(t *testing.T) {
	t.Parallel()
	knobs(t, awsIssuer(t, ""))
	t.Run("json", func(t *testing.T) { rotatetest.Once(t, awsIssuer(t, "json").open()) })
	t.Run("bare", func(t *testing.T) { rotatetest.Once(t, awsIssuer(t, "bare").open()) })
}

// The id of the key follows, and what else the user holds stays.
func TestAWSIAMUserFollows(t *testing.T) {
	t.Parallel()
	i := awsIssuer(t, "bare")
	fx := i.open()(t, "")
	r := runner(t, fx)
	must(t, r.Check(t.Context(), "test", "token"))
	if _, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, ""); err != nil {
		t.Fatal(err)
	}
	c, err := r.Vault.Find("test", "token")
	must(t, err)
	id, _, _ := strings.Cut(i.wire.living("1")[0], ":")
	if c.User != id+",region=eu-west-1" {
		t.Errorf("user %q, want that of key %s", c.User, id)
	}
	// The first value leaks again: its id is not the user's any more.
	old := c.ID()
	old.Version = 1
	if rep, err := r.Replace(t.Context(), old, rotate.Emergency, "", ""); err != nil || !rep.Dead || rep.State != "replaced" {
		t.Errorf("%+v, %v", rep, err)
	}
	settled(t, r, fx)
}

func TestAWSIAMQuota(t *testing.T) {
	t.Parallel()
	i := awsIssuer(t, "")
	fx := i.open()(t, "")
	r := runner(t, fx)
	other := awsKeyOf(i.wire, "1", "another's")
	_, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
	if !errors.Is(err, rotate.ErrRolledBack) || !strings.Contains(err.Error(), "two access keys") {
		t.Fatal(err)
	}
	if len(i.wire.living("1")) != 2 {
		t.Error("a key that is in use was deleted")
	}
	i.wire.set(func() { other.idle = true })
	if _, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, ""); err != nil {
		t.Fatal(err)
	}
	settled(t, r, fx)
	if n := len(i.wire.of("1")); n != 1 {
		t.Errorf("%d keys", n)
	}
}

// A key that somebody made while the rotation was open, and uses, is not taken for an
// earlier try's.
func TestAWSIAMLeavesOthersKeys(t *testing.T) {
	t.Parallel()
	i := awsIssuer(t, "")
	i.orphans = true // two keys are what is wanted here
	fx := i.open()(t, "")
	r := runner(t, fx)
	first := true
	i.wire.answer = func(rw http.ResponseWriter, q *http.Request) bool {
		b, _ := io.ReadAll(q.Body)
		q.Body = io.NopCloser(strings.NewReader(string(b)))
		if !first || !strings.Contains(string(b), "CreateAccessKey") {
			return false
		}
		first = false
		awsKeyOf(i.wire, "1", "a colleague's").used = true
		rw.WriteHeader(http.StatusInternalServerError)
		return true
	}
	_, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
	if err == nil || len(i.wire.living("1")) != 2 {
		t.Fatalf("%v; living: %d", err, len(i.wire.living("1")))
	}
}

func awsRoleCall(_ *wire, _ http.ResponseWriter, _ url.Values, _ *awsRole, _ time.Time, fail func(int, string, string)) {
	fail(http.StatusBadRequest, "InvalidAction", "")
}
