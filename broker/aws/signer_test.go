package aws

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	nethttp "net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/policy"
)

const (
	placeholder = "PLACEplacePLACEplacePLACEplacePLACEplace"
	realID      = "REALID"
)

// What a client signs properly arrives signed properly, with the real key, and says
// what it does.
func TestSignedAgain(t *testing.T) {
	sum := func(b string) string {
		s, _ := takeBody(&nethttp.Request{Body: io.NopCloser(strings.NewReader(b)), ContentLength: int64(len(b))})
		return s
	}
	amz := func(payload string) map[string]string { return map[string]string{"X-Amz-Content-Sha256": payload} }
	form := map[string]string{"Content-Type": "application/x-www-form-urlencoded"}
	for _, c := range []struct {
		name, method, url string
		header            map[string]string
		body, payload     string
		agent             func(*agent)
		want              string
	}{
		{"get", "GET", "https://s3.test/data/a%20b/c%2Bd?versionId=1", amz(emptySum), "", emptySum, nil, "s3:get data/a b/c+d"},
		{"head", "HEAD", "https://s3.test/data/a", amz(emptySum), "", emptySum, nil, "s3:get data/a"},
		{"list buckets", "GET", "https://s3.test/?x-id=ListBuckets", amz(emptySum), "", emptySum, nil, "s3:list "},
		{"list", "GET", "https://s3.test/data?list-type=2&prefix=in%2Fside%2Fx&delimiter=%2F", amz(emptySum), "", emptySum, nil, "s3:list data/in/side"},
		{"put", "PUT", "https://s3.test/data/a", amz(sum("hello")), "hello", sum("hello"), nil, "s3:put data/a"},
		{"put unsigned", "PUT", "https://s3.test/data/a", amz(unsigned), "hello", unsigned, nil, "s3:put data/a"},
		{"virtual host", "PUT", "https://data.v.test/a/b", amz(sum("hello")), "hello", sum("hello"), nil, "s3:put data/a/b"},
		{"virtual host at AWS", "PUT", "https://da.ta.s3.eu-west-1.amazonaws.com/a/b", amz(sum("hello")), "hello", sum("hello"), func(a *agent) { a.region = "eu-west-1" }, "s3:put da.ta/a/b"},
		{"path at AWS", "GET", "https://s3.eu-west-1.amazonaws.com/data/a", amz(emptySum), "", emptySum, func(a *agent) { a.region = "eu-west-1" }, "s3:get data/a"},
		{"part", "PUT", "https://s3.test/data/a?partNumber=1&uploadId=x", amz(sum("hello")), "hello", sum("hello"), nil, "s3:put data/a"},
		{"begin parts", "POST", "https://s3.test/data/a?uploads", amz(emptySum), "", emptySum, nil, "s3:put data/a"},
		{"give up parts", "DELETE", "https://s3.test/data/a?uploadId=x", amz(emptySum), "", emptySum, nil, "s3:put data/a"},
		{"delete", "DELETE", "https://s3.test/data/a", amz(emptySum), "", emptySum, nil, "s3:delete data/a"},
		{"delete many", "POST", "https://s3.test/data?delete", amz(sum("<Delete/>")), "<Delete/>", sum("<Delete/>"), nil, "s3:delete data"},
		{"policy", "PUT", "https://s3.test/data?policy", amz(sum("{}")), "{}", sum("{}"), nil, "aws:use s3/PUT/policy/data"},
		{"read of a policy", "GET", "https://s3.test/data?policy", amz(emptySum), "", emptySum, nil, "aws:use s3/GET/policy/data"},
		{"an unknown subresource", "PUT", "https://s3.test/data/a?newthing", amz(emptySum), "", emptySum, nil, "aws:use s3/PUT/newthing/data/a"},
		{"public by a header", "PUT", "https://s3.test/data/a", map[string]string{"X-Amz-Content-Sha256": sum("x"), "X-Amz-Acl": "public-read"}, "x", sum("x"), nil, "aws:use s3/PUT/acl/data/a"},
		{"make a bucket", "PUT", "https://s3.test/data", amz(emptySum), "", emptySum, nil, "aws:use s3/PUT/data"},
		{"copy", "PUT", "https://s3.test/data/a", map[string]string{"X-Amz-Content-Sha256": emptySum, "X-Amz-Copy-Source": "/mine/b%20c?versionId=1"}, "", emptySum, nil, "s3:put data/a"},
		{"session of Express", "GET", "https://x--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com/?session", amz(emptySum), "", emptySum, func(a *agent) { a.service = "s3express" }, "token:mint s3express/CreateSession"},
		{"control", "GET", "https://123.s3-control.us-east-1.amazonaws.com/v20180820/accessgrantsinstance/dataaccess", amz(emptySum), "", emptySum, nil, "token:mint s3-control/GET/v20180820/accessgrantsinstance/dataaccess"},
		{"presigned", "GET", "https://s3.test/data/a", nil, "", unsigned, func(a *agent) { a.presign = 600 }, "s3:get data/a"},
		{"presigned put", "PUT", "https://s3.test/data/a", nil, "hello", unsigned, func(a *agent) { a.presign = 600 }, "s3:put data/a"},
		{"4A", "GET", "https://s3.test/data/a", map[string]string{"X-Amz-Content-Sha256": emptySum, "X-Amz-Region-Set": "us-east-1"}, "", emptySum, func(a *agent) { a.alg = algECDSA }, "s3:get data/a"},
		{"sts", "POST", "https://sts.us-east-1.amazonaws.com/", form, "Action=GetCallerIdentity&Version=2011-06-15", sum("Action=GetCallerIdentity&Version=2011-06-15"), func(a *agent) { a.service = "sts" }, "aws:use sts/GetCallerIdentity"},
		{"sts by GET", "GET", "https://sts.amazonaws.com/?Action=GetCallerIdentity", nil, "", emptySum, func(a *agent) { a.service = "sts" }, "aws:use sts/GetCallerIdentity"},
		{"mint", "POST", "https://sts.us-east-1.amazonaws.com/", form, "Action=AssumeRole", sum("Action=AssumeRole"), func(a *agent) { a.service = "sts" }, "token:mint sts/AssumeRole"},
		{"mint without a type", "POST", "https://sts.us-east-1.amazonaws.com/", nil, "Action=AssumeRole", sum("Action=AssumeRole"), func(a *agent) { a.service = "sts" }, "token:mint sts/AssumeRole"},
		{"mint unsigned", "POST", "https://iam.amazonaws.com/", map[string]string{"X-Amz-Content-Sha256": unsigned}, "Action=CreateAccessKey", unsigned, func(a *agent) { a.service = "iam" }, "token:mint iam/CreateAccessKey"},
		{"mint, another case", "POST", "https://iam.amazonaws.com/", form, "action=createaccesskey", sum("action=createaccesskey"), func(a *agent) { a.service = "iam" }, "token:mint iam/createaccesskey"},
		{"dynamodb", "POST", "https://dynamodb.us-east-1.amazonaws.com/", map[string]string{"X-Amz-Target": "DynamoDB_20120810.GetItem", "Content-Type": "application/x-amz-json-1.0"}, "{}", sum("{}"), func(a *agent) { a.service = "dynamodb" }, "aws:use dynamodb/GetItem"},
		{"ecr", "POST", "https://api.ecr.us-east-1.amazonaws.com/", map[string]string{"X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}, "{}", sum("{}"), func(a *agent) { a.service = "ecr" }, "token:mint ecr/GetAuthorizationToken"},
		{"lambda", "GET", "https://lambda.us-east-1.amazonaws.com/2015-03-31/functions/a:b", nil, "", emptySum, func(a *agent) { a.service = "lambda" }, "aws:use lambda/GET/2015-03-31/functions/a:b"},
		{"codeartifact", "POST", "https://codeartifact.us-east-1.amazonaws.com/v1/authorization-token?domain=d", nil, "", emptySum, func(a *agent) { a.service = "codeartifact" }, "token:mint codeartifact/POST/v1/authorization-token"},
		{"rpc", "POST", "https://iam.amazonaws.com/service/IAM/operation/CreateAccessKey", nil, "", emptySum, func(a *agent) { a.service = "iam" }, "token:mint iam/CreateAccessKey"},
		{"big body", "POST", "https://lambda.us-east-1.amazonaws.com/2015-03-31/functions", nil, strings.Repeat("z", 3<<20), sum(strings.Repeat("z", 3<<20)), func(a *agent) { a.service = "lambda" }, "aws:use lambda/POST/2015-03-31/functions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAgent()
			if c.agent != nil {
				c.agent(&a)
			}
			r := request(t, c.method, c.url, c.header, c.body)
			a.sign(t, r, c.payload)
			g, b, err := pass(t, newSigner(), r)
			if err != nil || g == nil || g.Refused != nil || string(b) != c.body {
				t.Fatalf("%+v, %d bytes, %v", g, len(b), err)
			}
			if got := g.Action + " " + g.Resource; got != c.want {
				t.Errorf("action %q, want %q", got, c.want)
			}
			if g.Mint != strings.HasPrefix(c.want, "token:mint") {
				t.Errorf("mint: %v", g.Mint)
			}
		})
	}
}

func TestSignedAgainInChunks(t *testing.T) {
	for payload, kind := range map[string]streaming{streamSigned: {signed: true}, streamSignedTrailer: {signed: true, trailer: true}, streamUnsigned: {trailer: true}, streamECDSA: {signed: true, ecdsa: true}, streamECDSATrailer: {signed: true, ecdsa: true, trailer: true}} {
		for _, n := range []int{0, 1, 200000} {
			data := bytes.Repeat([]byte("d"), n)
			a := newAgent()
			if kind.ecdsa {
				a.alg = algECDSA
			}
			r := request(t, "PUT", "https://s3.test/data/a", map[string]string{"X-Amz-Content-Sha256": payload, "X-Amz-Decoded-Content-Length": strconv.Itoa(n), "Content-Encoding": "aws-chunked"}, "")
			trailer := ""
			if kind.trailer {
				trailer = "x-amz-checksum-crc32:AAAAAA==\n"
				r.Header.Set("X-Amz-Trailer", "x-amz-checksum-crc32")
			}
			sig := a.sign(t, r, payload)
			by, err := sig.signer(a.keys)
			if err != nil {
				t.Fatal(err)
			}
			var c *chain
			if kind.signed {
				c = newChain(by, sig, sig.value)
			}
			body := chunked(t, data, 65536, kind, c, trailer)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			g, got, err := pass(t, newSigner(), r)
			if err != nil || g.Refused != nil || !bytes.Equal(got, data) {
				t.Fatalf("%s, %d bytes: %+v, %d bytes, %v", payload, n, g, len(got), err)
			}
		}
	}
}

// Whatever is not signed as it should be is refused, in the shape that AWS's clients
// read, with everything that a refusal of guard's says.
func TestRefused(t *testing.T) {
	good := func(change func(*agent), url string, header map[string]string) *nethttp.Request {
		a := newAgent()
		if change != nil {
			change(&a)
		}
		if header == nil {
			header = map[string]string{"X-Amz-Content-Sha256": emptySum}
		}
		r := request(t, "GET", url, header, "")
		payload := emptySum
		if a.presign > 0 {
			r.Header.Del("X-Amz-Content-Sha256")
			payload = unsigned
		}
		a.sign(t, r, payload)
		return r
	}
	const at = "https://s3.test/data/a"
	other := keys{id: "AKIAOTHER", secret: "other"}
	for _, c := range []struct {
		name string
		r    func() *nethttp.Request
		rule string
		code string
	}{
		{"no signature", func() *nethttp.Request { return request(t, "GET", at, nil, "") }, "aws-signature", "AccessDenied"},
		{"signature stripped", func() *nethttp.Request { r := good(nil, at, nil); r.Header.Del("Authorization"); return r }, "aws-signature", "AccessDenied"},
		{"a bearer token", func() *nethttp.Request {
			return request(t, "GET", at, map[string]string{"Authorization": "Bearer x"}, "")
		}, "aws-signature", "AccessDenied"},
		{"another key", func() *nethttp.Request { return good(func(a *agent) { a.keys = other }, at, nil) }, "aws-signature", "InvalidAccessKeyId"},
		{"the placeholder's id, another secret", func() *nethttp.Request { return good(func(a *agent) { a.keys.secret = "other" }, at, nil) }, "aws-signature", "SignatureDoesNotMatch"},
		{"the real id, another secret", func() *nethttp.Request {
			return good(func(a *agent) { a.keys = keys{id: realID, secret: "other"} }, at, nil)
		}, "aws-signature", "SignatureDoesNotMatch"},
		{"another path", func() *nethttp.Request { r := good(nil, at, nil); r.URL.Path = "/data/b"; return r }, "aws-signature", "SignatureDoesNotMatch"},
		{"another query", func() *nethttp.Request { r := good(nil, at, nil); r.URL.RawQuery = "acl"; return r }, "aws-signature", "SignatureDoesNotMatch"},
		{"another method", func() *nethttp.Request { r := good(nil, at, nil); r.Method = "DELETE"; return r }, "aws-signature", "SignatureDoesNotMatch"},
		{"another host's", func() *nethttp.Request {
			r := good(nil, "https://data.v.test/data/a", nil)
			r.Host = "s3.test"
			return r
		}, "aws-signature", "SignatureDoesNotMatch"},
		{"host not signed", func() *nethttp.Request { return good(func(a *agent) { a.skip = []string{"host"} }, at, nil) }, "aws-signature", "AccessDenied"},
		{"a header that counts is not signed", func() *nethttp.Request { r := good(nil, at, nil); r.Header.Set("X-Amz-Acl", "public-read"); return r }, "aws-signature", "AccessDenied"},
		{"a header twice", func() *nethttp.Request {
			r := good(nil, at, nil)
			r.Header.Add("X-Amz-Date", "20260102T030405Z")
			return r
		}, "aws-signature", "AccessDenied"},
		{"two signatures", func() *nethttp.Request {
			r := good(nil, at, nil)
			r.Header.Add("Authorization", r.Header.Get("Authorization"))
			return r
		}, "aws-signature", "InvalidArgument"},
		{"a signature in header and query", func() *nethttp.Request {
			r := good(func(a *agent) { a.presign = 60 }, at, nil)
			r.Header.Set("Authorization", good(nil, at, nil).Header.Get("Authorization"))
			return r
		}, "aws-signature", "InvalidArgument"},
		{"a Basic header beside a presigned query", func() *nethttp.Request {
			r := good(func(a *agent) { a.presign = 60 }, at, nil)
			r.Header.Set("Authorization", "Basic eDp5")
			return r
		}, "aws-signature", "InvalidArgument"},
		{"version 2", func() *nethttp.Request {
			return request(t, "GET", at, map[string]string{"Authorization": "AWS " + KeyID(placeholder) + ":c2ln"}, "")
		}, "aws-signature", "InvalidRequest"},
		{"version 2 presigned", func() *nethttp.Request {
			return request(t, "GET", at+"?AWSAccessKeyId="+KeyID(placeholder)+"&Expires=1&Signature=x", nil, "")
		}, "aws-signature", "InvalidRequest"},
		{"too old", func() *nethttp.Request { return good(func(a *agent) { a.at = a.at.Add(-16 * time.Minute) }, at, nil) }, "aws-signature", "RequestTimeTooSkewed"},
		{"of the future", func() *nethttp.Request { return good(func(a *agent) { a.at = a.at.Add(16 * time.Minute) }, at, nil) }, "aws-signature", "RequestTimeTooSkewed"},
		{"presigned and expired", func() *nethttp.Request {
			return good(func(a *agent) { a.at, a.presign = a.at.Add(-time.Minute), 30 }, at, nil)
		}, "aws-signature", "AccessDenied"},
		{"presigned for longer than a week", func() *nethttp.Request { return good(func(a *agent) { a.presign = 8 * 24 * 3600 }, at, nil) }, "aws-signature", "AccessDenied"},
		{"a parameter twice", func() *nethttp.Request {
			r := good(func(a *agent) { a.presign = 60 }, at, nil)
			r.URL.RawQuery += "&x-amz-expires=600000"
			return r
		}, "aws-signature", "AccessDenied"},
		{"another algorithm", func() *nethttp.Request {
			r := good(nil, at, nil)
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "SHA256", "SHA1", 1))
			return r
		}, "aws-signature", "AccessDenied"},
		{"chunks of a service that has none", func() *nethttp.Request {
			return good(func(a *agent) { a.service = "sts" }, "https://sts.amazonaws.com/", map[string]string{"X-Amz-Content-Sha256": streamSigned})
		}, "aws-signature", "AccessDenied"},
		{"a sum that is none", func() *nethttp.Request { return good(nil, at, map[string]string{"X-Amz-Content-Sha256": "x"}) }, "aws-signature", "AccessDenied"},
		{"two operations", func() *nethttp.Request {
			return good(func(a *agent) { a.service = "sts" }, "https://sts.amazonaws.com/?Action=GetCallerIdentity&Action=AssumeRole", map[string]string{})
		}, "aws-signature", "AccessDenied"},
		{"a copy from elsewhere", func() *nethttp.Request {
			return good(nil, at, map[string]string{"X-Amz-Content-Sha256": emptySum, "X-Amz-Copy-Source": "theirs/x"})
		}, "scope", "AccessDenied"},
		{"at a host of somebody else", func() *nethttp.Request { return good(nil, "https://evil.test/data/a", nil) }, "placeholder-host", "AccessDenied"},
		{"presigned at a host of somebody else", func() *nethttp.Request {
			return good(func(a *agent) { a.presign = 60 }, "https://evil.test/data/a", nil)
		}, "placeholder-host", "AccessDenied"},
		{"at a customer's name below AWS's", func() *nethttp.Request { return good(nil, "https://evil.us-east-1.elb.amazonaws.com/data/a", nil) }, "placeholder-host", "AccessDenied"},
		{"at another customer's name", func() *nethttp.Request { return good(nil, "https://ec2-1-2-3-4.compute-1.amazonaws.com/data/a", nil) }, "placeholder-host", "AccessDenied"},
		{"a decoy", func() *nethttp.Request {
			return good(func(a *agent) { a.keys = keys{id: KeyID(creds()[1].Placeholder), secret: creds()[1].Placeholder} }, at, nil)
		}, policy.RuleDecoy, "AccessDenied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.r()
			g, _, err := pass(t, newSigner(), r)
			if err != nil || g == nil || g.Refused == nil {
				t.Fatalf("not refused: %+v, %v", g, err)
			}
			if g.Refused.Decision.Rule != c.rule || g.Refused.Decision.Action.String() != "block" {
				t.Errorf("%+v", g.Refused.Decision)
			}
			kind, b := g.Deny(Denial{Status: 403, Error: "policy_denied", Layer: "credential", Credential: "s3", Host: "s3.test", Method: "GET", Path: "/data/a", Rule: g.Refused.Decision.Rule, Reason: g.Refused.Decision.Reason, NextSteps: g.Refused.Decision.NextSteps, RequestID: "id"})
			var e struct {
				Code, Message, RequestId string
				Layer                    string `xml:"layer"`
				Rule                     string `xml:"rule"`
				Error                    struct{ Code string }
			}
			if err := xml.Unmarshal(b, &e); err != nil || !strings.HasSuffix(kind, "/xml") || e.Code != c.code && e.Error.Code != c.code {
				t.Errorf("%s, %s, %v; want %s", kind, b, err, c.code)
			}
			for _, secret := range []string{placeholder, realSecret(), realID} {
				if strings.Contains(string(b), secret) {
					t.Errorf("the refusal has a key: %s", b)
				}
			}
		})
	}
}

func TestRefusalsOfOtherServices(t *testing.T) {
	r := request(t, "POST", "https://dynamodb.us-east-1.amazonaws.com/", map[string]string{"X-Amz-Target": "DynamoDB_20120810.GetItem"}, "{}")
	g := newSigner().Sign(wrap(r))
	if g == nil || g.Refused == nil {
		t.Fatalf("%+v", g)
	}
	kind, b := g.Deny(Denial{Error: "policy_denied", Layer: "credential", Rule: "aws-signature", Reason: g.Refused.Decision.Reason, NextSteps: []string{"x"}})
	var e map[string]any
	if err := json.Unmarshal(b, &e); err != nil || kind != "application/x-amz-json-1.1" || e["__type"] != "AccessDeniedException" {
		t.Fatalf("%s %s %v", kind, b, err)
	}
	for _, k := range []string{"error", "layer", "credential", "host", "method", "path", "rule", "reason", "next_steps", "request_id"} {
		if _, ok := e[k]; !ok {
			t.Errorf("no %s in %s", k, b)
		}
	}
}

// Chunks that are another request's are not passed on as a whole body.
func TestChunksOfAnotherRequest(t *testing.T) {
	data := bytes.Repeat([]byte("d"), 100000)
	make := func(path string) *nethttp.Request {
		r := request(t, "PUT", "https://s3.test/data/"+path, map[string]string{"X-Amz-Content-Sha256": streamSigned, "X-Amz-Decoded-Content-Length": "100000"}, "")
		a := newAgent()
		sig := a.sign(t, r, streamSigned)
		by, _ := sig.signer(a.keys)
		body := chunked(t, data, 65536, streaming{signed: true}, newChain(by, sig, sig.value), "")
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		return r
	}
	one, two := make("one"), make("two")
	one.Body = two.Body
	_, _, err := pass(t, newSigner(), one)
	var ref *Refused
	if err == nil || !asRefused(err, &ref) || !strings.Contains(ref.Decision.Reason, "does not verify") {
		t.Fatalf("%v", err)
	}
}

func asRefused(err error, to **Refused) bool {
	r, ok := err.(*Refused)
	*to = r
	return ok
}

// Requests that are nobody's business here go on as they are.
func TestNotItsOwn(t *testing.T) {
	s := newSigner()
	s.Active = func(guard.Credential) bool { return false }
	a := newAgent()
	a.keys = keys{"AKIAOTHER", "other", ""}
	foreign := request(t, "GET", "https://s3.test/data/a", nil, "")
	a.sign(t, foreign, emptySum)
	for name, r := range map[string]*nethttp.Request{
		"no signature, credential not allowed": request(t, "GET", "https://s3.test/data/a", nil, ""),
		"another key, credential not allowed":  foreign,
	} {
		if g := s.Sign(wrap(r)); g != nil {
			t.Errorf("%s: %+v", name, g)
		}
	}
	if g := newSigner().Sign(wrap(request(t, "GET", "https://example.test/", nil, ""))); g != nil {
		t.Errorf("another host: %+v", g)
	}
	if g := newSigner().Sign(wrap(request(t, "GET", "https://app.us-east-1.elb.amazonaws.com/", nil, ""))); g != nil {
		t.Errorf("a web page below AWS's domain: %+v", g)
	}
}

func TestValues(t *testing.T) {
	for name, c := range map[string]struct{ value, user, want string }{
		"secret and user": {"sec", "ID", "ID sec "}, "with options": {"sec", "ID,session=federation", "ID sec "}, "pair": {"ID:sec", "", "ID sec "}, "with token": {"ID:sec:tok", "", "ID sec tok"},
		"JSON": {`{"AccessKeyId":"ID","SecretAccessKey":"sec","SessionToken":"tok"}`, "", "ID sec tok"}, "of STS": {`{"Credentials":{"AccessKeyId":"ID","SecretAccessKey":"sec","SessionToken":"tok"}}`, "", "ID sec tok"},
		"of IAM": {`{"AccessKey":{"AccessKeyId":"ID","SecretAccessKey":"sec"}}`, "", "ID sec "}, "secret alone": {"sec", "", ""}, "not JSON": {"{", "", ""}, "empty JSON": {"{}", "", ""},
	} {
		k, err := keysOf(c.value, c.user)
		if got := k.id + " " + k.secret + " " + k.token; err == nil && got != c.want || err != nil && c.want != "" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if id := KeyID(placeholder); len(id) != 20 || id != KeyID(placeholder) || id == KeyID(placeholder+"x") {
		t.Error(id)
	}
}

// A value with a session token sends it, signed, and nothing of what the agent had.
func TestSessionTokenOfTheValue(t *testing.T) {
	for _, presign := range []int{0, 600} {
		a := newAgent()
		a.presign = presign
		r := request(t, "GET", "https://s3.test/data/a", map[string]string{"X-Amz-Security-Token": "stale"}, "")
		payload := unsigned
		if presign == 0 {
			r.Header.Set("X-Amz-Content-Sha256", emptySum)
			payload = emptySum
		} else {
			r.Header.Del("X-Amz-Security-Token")
		}
		a.sign(t, r, payload)
		g := newSigner().Sign(wrap(r))
		if g == nil || g.Refused != nil {
			t.Fatalf("%+v", g)
		}
		if err := g.Apply(r, "REALID:"+realSecret()+":token+/="); err != nil {
			t.Fatal(err)
		}
		got := r.Header.Get("X-Amz-Security-Token")
		if presign > 0 {
			got = r.URL.Query().Get("X-Amz-Security-Token")
		}
		if _, err := server(t, r, realID, realSecret()); err != nil || got != "token+/=" {
			t.Errorf("%q, %v", got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/20260102/r/s/aws4_request, SignedHeaders=host, Signature=00", "a=b")
	f.Fuzz(func(t *testing.T, auth, query string) {
		r := &nethttp.Request{Method: "GET", Host: "s3.test", URL: &url.URL{Path: "/", RawQuery: query}, Header: nethttp.Header{"Authorization": {auth}, "X-Amz-Date": {"20260102T030405Z"}}}
		g := newSigner().Sign(wrap(r))
		if g != nil && g.Refused == nil {
			t.Fatalf("signed: %q %q", auth, query)
		}
	})
}
