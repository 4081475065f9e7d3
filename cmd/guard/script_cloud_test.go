//go:build linux

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// cloudServer follows what Google, Microsoft, AWS and Kubernetes document of their
// token endpoints, and of one request each that needs what these give out.
type cloudServer struct {
	secret                   string // of the Azure application, the AWS key, and Kubernetes
	key                      *rsa.PublicKey
	google, azure, awsToken  string
	awsID, awsKey, sessionID string
	s3Policy                 string
}

const cloudAccount = "robot@project-1.iam.gserviceaccount.com"

// cloud: servers at the hosts of clouds, at $CLOUD_PORT. $GCP_KEY is the key file of a
// service account, $CANARY the secret of an Azure application, an AWS key and a
// cluster's token, $AWS_ID the id of the key. What they give out are canaries.
func cmdCloud(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 0, "cloud")
	s := stateOf(ts)
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	ts.Check(err)
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	file, err := json.Marshal(map[string]string{"type": "service_account", "project_id": "project-1", "private_key_id": "kid", "private_key": text, "client_email": cloudAccount, "token_uri": "https://oauth2.googleapis.com/token"})
	ts.Check(err)
	ts.Setenv("GCP_KEY", string(file))
	s.t.plant("GCP_KEY", strings.Split(text, "\n")[3])
	random := func(name, prefix string) string {
		v := prefix + strings.ToLower(rand.Text()+rand.Text())
		s.t.plant(name, v)
		return v
	}
	c := &cloudServer{
		secret: ts.Getenv("CANARY"), key: &k.PublicKey, google: random("GOOGLE", "ya29."), azure: random("AZURE", "az-"), awsToken: random("AWSTOKEN", "tok-"),
		awsID: newAccessKey(), awsKey: random("AWSSESSION", "key-"), sessionID: "ASIA" + newAccessKey()[4:],
	}
	ts.Setenv("AWS_ID", c.awsID)
	names := []string{"oauth2.googleapis.com", "storage.googleapis.com", "login.microsoftonline.com", "graph.microsoft.com", "sts.us-east-1.amazonaws.com", "s3.us-east-1.amazonaws.com", "kube.example.com"}
	port := portOf(testutil.HTTPSServer(s.t.T, authority(ts, s), c, names...).URL)
	ts.Setenv("CLOUD_PORT", port)
	resolve := ""
	for _, n := range names {
		resolve += " --resolve " + n + ":443:127.0.0.1:" + port
	}
	ts.Setenv("CLOUD", resolve)
}

// kubecert HOST VAR: an API server at HOST that takes the certificate in $VAR, and a
// token in no form: $VAR is the certificate and its key (PEM), $VAR_CERT and $VAR_KEY are both in base64, as
// kubectl's configuration has them. $KUBE_PORT is its port.
func cmdKubeCert(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "kubecert HOST VAR")
	s := stateOf(ts)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "robot", Organization: []string{"deployers"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	ts.Check(err)
	cert, err := x509.ParseCertificate(der)
	ts.Check(err)
	private, err := x509.MarshalECPrivateKey(key)
	ts.Check(err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	ts.Setenv(args[1], string(certPEM)+string(keyPEM))
	ts.Setenv(args[1]+"_CERT", base64.StdEncoding.EncodeToString(certPEM))
	ts.Setenv(args[1]+"_KEY", base64.StdEncoding.EncodeToString(keyPEM))
	s.t.plant(args[1], strings.Split(string(keyPEM), "\n")[1])
	s.t.plant(args[1]+" in base64", base64.StdEncoding.EncodeToString(keyPEM))
	clients := x509.NewCertPool()
	clients.AddCert(cert)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(401)
			io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`)
			return
		}
		kubeAPI(w, r.URL.Path)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{authority(ts, s).Server(s.t.T, args[0])}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}
	srv.StartTLS()
	s.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	ts.Setenv("KUBE_PORT", portOf(srv.URL))
}

// kubeAPI is what kubectl asks for when it lists pods.
func kubeAPI(w http.ResponseWriter, path string) {
	text, ok := map[string]string{
		"/api/v1/namespaces/default/pods": `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"web-1","namespace":"default"},"spec":{"containers":[{"name":"web","image":"web"}]},"status":{"phase":"Running"}}]}`,
		"/api":                            `{"kind":"APIVersions","versions":["v1"]}`,
		"/apis":                           `{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`,
		"/api/v1":                         `{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get","list"],"shortNames":["po"]}]}`,
	}[path]
	if !ok {
		w.WriteHeader(404)
		text = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`
	}
	io.WriteString(w, text)
}

func (c *cloudServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	say := func(status int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, text)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	form, _ := url.ParseQuery(string(body))
	auth := r.Header.Get("Authorization")
	switch r.Host + r.URL.Path {
	case "oauth2.googleapis.com/token":
		text, sig, _ := cutAtLast(form.Get("assertion"))
		raw, _ := base64.RawURLEncoding.DecodeString(sig)
		sum := sha256.Sum256([]byte(text))
		if rsa.VerifyPKCS1v15(c.key, crypto.SHA256, sum[:], raw) != nil {
			say(400, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`)
			return
		}
		say(200, fmt.Sprintf(`{"access_token":%q,"expires_in":3599,"token_type":"Bearer"}`, c.google))
	case "storage.googleapis.com/storage/v1/b/bucket":
		if auth != "Bearer "+c.google {
			say(401, `{"error":{"code":401,"message":"Invalid Credentials"}}`)
			return
		}
		say(200, fmt.Sprintf(`{"kind":"storage#bucket","name":"bucket","echo":%q}`, auth)) // as debug endpoints do
	case "login.microsoftonline.com/tenant-1/oauth2/v2.0/token":
		if form.Get("client_secret") != c.secret || form.Get("grant_type") != "client_credentials" || form.Get("client_id") != "app-1" || form.Get("scope") != "https://graph.microsoft.com/.default" {
			say(401, `{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}`)
			return
		}
		say(200, fmt.Sprintf(`{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"access_token":%q}`, c.azure))
	case "graph.microsoft.com/v1.0/organization":
		if auth != "Bearer "+c.azure {
			say(401, `{"error":{"code":"InvalidAuthenticationToken"}}`)
			return
		}
		say(200, `{"value":[{"id":"tenant-1"}]}`)
	case "sts.us-east-1.amazonaws.com/":
		c.sts(w, r, body, form)
	case "s3.us-east-1.amazonaws.com/data/in/x":
		if !strings.Contains(auth, "Credential="+c.sessionID+"/") || r.Header.Get("X-Amz-Security-Token") != c.awsToken || !c.signed(r, c.awsKey, r.Header.Get("X-Amz-Content-Sha256")) {
			w.WriteHeader(403)
			io.WriteString(w, "<Error><Code>SignatureDoesNotMatch</Code></Error>")
			return
		}
		io.WriteString(w, c.s3Policy+"\necho "+c.awsToken+" "+c.awsKey+"\n") // as debug endpoints do
	case "kube.example.com/api/v1/namespaces/default/pods":
		if auth != "Bearer "+c.secret {
			say(401, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		kubeAPI(w, r.URL.Path)
	case "kube.example.com/api", "kube.example.com/apis", "kube.example.com/api/v1":
		w.Header().Set("Content-Type", "application/json")
		kubeAPI(w, r.URL.Path)
	default:
		say(404, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
	}
}

// sts answers AssumeRole.
func (c *cloudServer) sts(w http.ResponseWriter, r *http.Request, body []byte, form url.Values) {
	sum := sha256.Sum256(body)
	if !strings.Contains(r.Header.Get("Authorization"), "Credential="+c.awsID+"/") || !c.signed(r, c.secret, hex.EncodeToString(sum[:])) || form.Get("Action") != "AssumeRole" {
		w.WriteHeader(403)
		io.WriteString(w, "<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>")
		return
	}
	if form.Get("RoleArn") != "arn:aws:iam::123456789012:role/agent" {
		w.WriteHeader(403)
		io.WriteString(w, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")
		return
	}
	c.s3Policy = form.Get("Policy")
	fmt.Fprintf(w, "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
		c.sessionID, c.awsKey, c.awsToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
}

// signed verifies a signature in a header, by itself and not by package broker/aws:
// of a request without query, whose signed headers have one value each.
func (c *cloudServer) signed(r *http.Request, key, payload string) bool {
	_, scope, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	scope, _, _ = strings.Cut(scope, ",")
	_, names, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	names, value, _ := strings.Cut(names, ", Signature=")
	parts := strings.Split(scope, "/")
	if len(parts) != 5 {
		return false
	}
	text := r.Method + "\n" + r.URL.EscapedPath() + "\n\n"
	for _, n := range strings.Split(names, ";") {
		v := r.Header.Get(n)
		if n == "host" {
			v = r.Host
		}
		text += n + ":" + v + "\n"
	}
	text += "\n" + names + "\n" + payload
	sum := sha256.Sum256([]byte(text))
	mac := func(k []byte, s string) []byte {
		m := hmac.New(sha256.New, k)
		m.Write([]byte(s))
		return m.Sum(nil)
	}
	k := []byte("AWS4" + key)
	for _, p := range parts[1:] {
		k = mac(k, p)
	}
	want := mac(k, "AWS4-HMAC-SHA256\n"+r.Header.Get("X-Amz-Date")+"\n"+strings.Join(parts[1:], "/")+"\n"+hex.EncodeToString(sum[:]))
	return hex.EncodeToString(want) == value
}

func cutAtLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
