package aws

import (
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
)

// action is what a request does, and to what.
type action struct {
	name     string // of policy: s3:get, s3:list, s3:put, s3:delete, aws:use, token:mint
	resource string // "BUCKET/KEY", or "SERVICE/Operation"
}

func (a action) mints() bool { return a.name == "token:mint" }

// operations that give out credentials, or make what opens the account: by service.
var minting = map[string][]string{
	"sts": {"AssumeRole", "AssumeRoleWithSAML", "AssumeRoleWithWebIdentity", "AssumeRoot", "GetSessionToken", "GetFederationToken", "GetDelegatedAccessToken", "GetWebIdentityToken"},
	"iam": {"CreateAccessKey", "UpdateAccessKey", "CreateLoginProfile", "UpdateLoginProfile", "CreateServiceSpecificCredential", "ResetServiceSpecificCredential",
		"UploadSSHPublicKey", "UploadSigningCertificate", "CreateVirtualMFADevice", "EnableMFADevice", "ChangePassword"},
	"ecr":                 {"GetAuthorizationToken"},
	"ecr-public":          {"GetAuthorizationToken"},
	"cognito-identity":    {"GetCredentialsForIdentity", "GetOpenIdToken", "GetOpenIdTokenForDeveloperIdentity"},
	"redshift":            {"GetClusterCredentials", "GetClusterCredentialsWithIAM"},
	"redshift-serverless": {"GetCredentials"},
	"ec2":                 {"CreateKeyPair", "ImportKeyPair", "GetPasswordData"},
	"lightsail":           {"CreateKeyPair", "DownloadDefaultKeyPair", "GetInstanceAccessDetails", "CreateBucketAccessKey", "GetRelationalDatabaseMasterUserPassword"},
	"gamelift":            {"GetInstanceAccess", "GetComputeAccess"},
	"codecommit":          {},
	"s3express":           {"CreateSession"},
}

// mintingPaths are those of services without operations in a request, as
// "METHOD /path", in lower case; a part may be *.
var mintingPaths = map[string][]string{
	"codeartifact":        {"post /v1/authorization-token"},
	"iot":                 {"post /keys-and-certificate", "post /certificates"},
	"apigateway":          {"post /apikeys"},
	"awsssoportal":        {"get /federation/credentials"},
	"sso-oauth":           {"post /token"},
	"rolesanywhere":       {"post /sessions"},
	"emr-containers":      {"post /virtualclusters/*/endpoints/*/credentials"},
	"redshift-serverless": {"post /"},
	"s3-control":          {"get /v20180820/accessgrantsinstance/dataaccess"},
	"appsync":             {"post /v1/apis/*/apikeys"},
}

// mintFields are what the replies call what they give out.
func mintFields() []string {
	return []string{"authorizationtoken", "servicepassword", "servicecredentialsecret", "dbpassword", "keymaterial", "passworddata", "base32stringseed", "qrcodepng", "privatekeybase64", "secretaccesskey", "sessiontoken", "idtoken", "webidentitytoken"}
}

// classify derives the action of a request to service at host. params are the fields
// of a form in its body. The error says that servers may read it in two ways.
func classify(r *nethttp.Request, service, bucket string, params url.Values, control bool) (action, error) {
	if service == "s3" && !control {
		return classifyS3(r, bucket)
	}
	if control {
		service = "s3-control"
	}
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return action{}, wrong("InvalidArgument", "the query cannot be read")
	}
	if service == "s3express" {
		if q.has("session") {
			return action{"token:mint", "s3express/CreateSession"}, nil
		}
		a, err := classifyS3(r, bucket)
		return a, err
	}
	var ops []string
	for _, t := range r.Header["X-Amz-Target"] {
		ops = append(ops, t[strings.LastIndexByte(t, '.')+1:])
	}
	for _, p := range q {
		if strings.EqualFold(p.k, "Action") || strings.EqualFold(p.k, "Operation") {
			ops = append(ops, p.v)
		}
	}
	for k, vs := range params {
		if strings.EqualFold(k, "Action") || strings.EqualFold(k, "Operation") {
			ops = append(ops, vs...)
		}
	}
	slices.Sort(ops)
	ops = slices.Compact(ops)
	if len(ops) > 1 {
		return action{}, wrong("InvalidAction", "the request names more than one operation")
	}
	if len(ops) == 1 {
		op := ops[0]
		if op == "" || !word(op) {
			return action{}, wrong("InvalidAction", "the operation's name is none")
		}
		return named(service, op), nil
	}
	path := dotless(r.URL.Path)
	if last := path[strings.LastIndexByte(path, '/')+1:]; strings.Contains(path, "/operation/") && word(last) {
		return named(service, last), nil // Smithy RPC v2
	}
	line := strings.ToLower(r.Method + " " + strings.TrimSuffix(path, "/"))
	if path == "/" {
		line = strings.ToLower(r.Method) + " /"
	}
	for _, p := range mintingPaths[service] {
		if matchLine(p, line) {
			return action{"token:mint", service + "/" + r.Method + path}, nil
		}
	}
	return action{"aws:use", strings.TrimSuffix(service+"/"+r.Method+path, "/")}, nil
}

func named(service, op string) action {
	name := "aws:use"
	for _, m := range minting[service] {
		if strings.EqualFold(m, op) {
			name = "token:mint"
		}
	}
	return action{name, service + "/" + op}
}

func word(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

func matchLine(pattern, line string) bool {
	p, l := strings.Split(pattern, "/"), strings.Split(line, "/")
	if len(p) != len(l) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != l[i] {
			return false
		}
	}
	return true
}

// Parameters of S3 that are no subresource: how a reply looks, or a part of an upload.
var s3Plain = []string{
	"list-type", "prefix", "delimiter", "marker", "max-keys", "encoding-type", "continuation-token", "start-after", "fetch-owner", "versionid", "version-id-marker", "key-marker",
	"upload-id-marker", "max-uploads", "uploadid", "partnumber", "uploads", "versions", "x-id", "part-number-marker", "max-parts", "location", "attributes", "delete",
	"response-content-type", "response-content-language", "response-expires", "response-cache-control", "response-content-disposition", "response-content-encoding", "bucket-region",
	"max-buckets", "optional-object-attributes", "tagging",
}

// classifyS3 is it for S3's own API. What is about a bucket or who may see what, and
// not about data, is aws:use.
func classifyS3(r *nethttp.Request, bucket string) (action, error) {
	q, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return action{}, wrong("InvalidArgument", "the query cannot be read")
	}
	key := strings.TrimPrefix(r.URL.Path, "/")
	if bucket == "" {
		bucket, key, _ = strings.Cut(key, "/")
	}
	object := bucket
	if key != "" {
		object += "/" + key
	}
	for _, p := range q {
		k := strings.ToLower(p.k)
		if !slices.Contains(s3Plain, k) && !strings.HasPrefix(k, "x-amz-") {
			if k == "acl" || k == "policy" || r.Method != nethttp.MethodGet && r.Method != nethttp.MethodHead || !word(strings.ReplaceAll(k, "-", "")) {
				return action{"aws:use", "s3/" + r.Method + "/" + sub(k) + "/" + object}, nil
			}
			return action{"s3:list", bucket}, nil // how a bucket is set up
		}
	}
	for _, h := range []string{"X-Amz-Acl", "X-Amz-Grant-Read", "X-Amz-Grant-Write", "X-Amz-Grant-Full-Control", "X-Amz-Grant-Read-Acp", "X-Amz-Grant-Write-Acp"} {
		if v := r.Header.Get(h); v != "" && v != "private" && v != "bucket-owner-full-control" || q.get(h) != "" && q.get(h) != "private" {
			return action{"aws:use", "s3/" + r.Method + "/acl/" + object}, nil
		}
	}
	reads := r.Method == nethttp.MethodGet || r.Method == nethttp.MethodHead
	switch {
	case bucket == "":
		if !reads {
			return action{"aws:use", "s3/" + r.Method}, nil
		}
		return action{"s3:list", ""}, nil
	case reads && key == "":
		// A listing is of the folder that its prefix is in.
		if q.count("prefix") > 1 {
			return action{}, wrong("InvalidArgument", "the request has two prefixes")
		}
		folder := q.get("prefix")
		folder = strings.Trim(folder[:strings.LastIndexByte(folder, '/')+1], "/")
		if folder != "" {
			bucket += "/" + folder
		}
		return action{"s3:list", bucket}, nil
	case reads:
		if q.has("uploadid") {
			return action{"s3:list", object}, nil
		}
		return action{"s3:get", object}, nil
	case r.Method == nethttp.MethodPut && key != "", r.Method == nethttp.MethodPost && key != "" && (q.has("uploads") || q.has("uploadid")):
		return action{"s3:put", object}, nil
	case r.Method == nethttp.MethodDelete && key != "":
		if q.has("uploadid") {
			return action{"s3:put", object}, nil // an upload that is given up
		}
		return action{"s3:delete", object}, nil
	case r.Method == nethttp.MethodPost && key == "" && q.has("delete"):
		return action{"s3:delete", bucket}, nil // which keys is in the body: the whole bucket's scope is asked for
	}
	return action{"aws:use", "s3/" + r.Method + "/" + object}, nil
}

func sub(k string) string {
	if len(k) > 32 || !word(strings.ReplaceAll(k, "-", "")) {
		return "other"
	}
	return k
}

// copySource is what a request copies from, "BUCKET/KEY".
func copySource(r *nethttp.Request) (string, bool, error) {
	vs := r.Header["X-Amz-Copy-Source"]
	if len(vs) == 0 {
		q, _ := parseQuery(r.URL.RawQuery)
		if q.has("X-Amz-Copy-Source") {
			return "", false, wrong("InvalidArgument", "the source of a copy belongs in a header")
		}
		return "", false, nil
	}
	if len(vs) > 1 {
		return "", false, wrong("InvalidArgument", "the request has two sources of a copy")
	}
	src, _, _ := strings.Cut(vs[0], "?")
	src, err := url.PathUnescape(src)
	if err != nil || strings.HasPrefix(src, "arn:") {
		return "", false, wrong("InvalidArgument", "the source of the copy cannot be read: write BUCKET/KEY")
	}
	return strings.TrimPrefix(src, "/"), true, nil
}
