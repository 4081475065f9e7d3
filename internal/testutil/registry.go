package testutil

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Registry is an HTTPS server of private packages that takes one token, as its
// clients send it: Bearer, "token", alone, or as the password of Basic. What it
// has is called "guarded", version 1.0.0, under a path for each kind:
//
//	/npm/              npm, also to publish
//	/simple/           Python's simple index (PEP 503)
//	/cargo/            a sparse registry (Cargo's book, "Registry Index")
//	/go/               a module proxy, with example.com/guarded
//	/v2/               a container registry; /token gives what it wants
//	/api/              GitHub's API: v3/user, v3/gists, graphql
//	/maven/ /gem/      a file each
//	/lfs/              git's large files: objects/batch, and the files
//
// Any request without the token gets 401.
type Registry struct {
	*httptest.Server
	base  string // as clients see it
	token string

	mu        sync.Mutex
	seen      map[string][]string // first path element -> what was sent for the token
	published map[string][]byte   // name -> tarball
	objects   map[string][]byte   // of git's large files, by SHA-256
	bodies    map[string]string   // path -> the last body
}

// RegistryServer starts one for name, which clients know at https://name; it ends
// with the test.
func RegistryServer(t testing.TB, ca *CA, token, name string) *Registry {
	t.Helper()
	r := &Registry{base: "https://" + name, token: token, seen: map[string][]string{}, published: map[string][]byte{}, objects: map[string][]byte{}, bodies: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/npm/", r.npm)
	mux.HandleFunc("/simple/guarded/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<a href="/simple/files/guarded-1.0.0-py3-none-any.whl#sha256=%x">guarded</a>`, sha256.Sum256(wheel()))
	})
	mux.HandleFunc("/simple/files/", func(w http.ResponseWriter, _ *http.Request) { w.Write(wheel()) })
	mux.HandleFunc("/cargo/", r.cargo)
	mux.HandleFunc("/go/", goModule)
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"name": "guarded"})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, map[string]any{"token": "pull"}) })
	mux.HandleFunc("/api/", r.github)
	mux.HandleFunc("/maven/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "a jar") })
	mux.HandleFunc("/gem/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "a gem") })
	mux.HandleFunc("/lfs/", r.lfs)
	r.Server = HTTPSServer(t, ca, r.check(mux), name)
	return r
}

// given is what r says the token is.
func given(r *http.Request) string {
	if _, pass, ok := r.BasicAuth(); ok {
		return pass
	}
	h := r.Header.Get("Authorization")
	if scheme, tok, ok := strings.Cut(h, " "); ok && slices.Contains([]string{"bearer", "token"}, strings.ToLower(scheme)) {
		return tok
	}
	return h
}

func (r *Registry) check(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
		tok := given(req)
		r.mu.Lock()
		if tok != "" {
			r.seen[kind] = append(r.seen[kind], tok)
		}
		r.mu.Unlock()
		if tok != r.token && !(kind == "v2" && tok == "pull") {
			switch kind {
			case "v2":
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+r.base+`/token",service="registry"`)
			case "cargo":
				w.Header().Set("WWW-Authenticate", `Cargo login_url="`+r.base+`/me"`)
			default:
				w.Header().Set("WWW-Authenticate", `Basic realm="packages"`)
			}
			reply(w, http.StatusUnauthorized, map[string]any{"message": "authentication required"})
			return
		}
		next.ServeHTTP(w, req)
	})
}

// Seen lists what came as the token under the path of kind, in order.
func (r *Registry) Seen(kind string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen[kind])
}

// Body is the last body that path got.
func (r *Registry) Body(path string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.bodies[path]
}

func (r *Registry) keep(req *http.Request) []byte {
	var b bytes.Buffer
	b.ReadFrom(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies[req.URL.Path] = b.String()
	return b.Bytes()
}

func (r *Registry) npm(w http.ResponseWriter, req *http.Request) {
	name := strings.TrimPrefix(req.URL.Path, "/npm/")
	name, file, isFile := strings.Cut(name, "/-/")
	if name == "-/whoami" || isFile && file == "whoami" || strings.HasSuffix(req.URL.Path, "/-/whoami") {
		reply(w, http.StatusOK, map[string]any{"username": "somebody"})
		return
	}
	if req.Method == http.MethodPut {
		var doc struct {
			Attachments map[string]struct{ Data string } `json:"_attachments"`
		}
		if json.Unmarshal(r.keep(req), &doc) != nil {
			reply(w, http.StatusBadRequest, map[string]any{"error": "no package"})
			return
		}
		for _, a := range doc.Attachments {
			b, _ := base64.StdEncoding.DecodeString(a.Data)
			r.mu.Lock()
			r.published[name] = b
			r.mu.Unlock()
		}
		reply(w, http.StatusCreated, map[string]any{"ok": true})
		return
	}
	r.mu.Lock()
	tgz := r.published[name]
	r.mu.Unlock()
	if name == "guarded" {
		tgz = tarball("package/package.json", `{"name":"guarded","version":"1.0.0","main":"i.js"}`, "package/i.js", "module.exports = 'installed'\n")
	}
	switch {
	case tgz == nil:
		reply(w, http.StatusNotFound, map[string]any{"error": "not found"})
	case isFile:
		w.Write(tgz)
	default:
		reply(w, http.StatusOK, map[string]any{"name": name, "dist-tags": map[string]any{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": map[string]any{
			"name": name, "version": "1.0.0", "main": "i.js",
			"dist": map[string]any{"tarball": r.base + "/npm/" + name + "/-/" + name + "-1.0.0.tgz", "shasum": fmt.Sprintf("%x", sha1.Sum(tgz))}}}})
	}
}

func (r *Registry) cargo(w http.ResponseWriter, req *http.Request) {
	crate := tarball("guarded-1.0.0/Cargo.toml", "[package]\nname = \"guarded\"\nversion = \"1.0.0\"\nedition = \"2021\"\n", "guarded-1.0.0/src/lib.rs", "")
	switch path := strings.TrimPrefix(req.URL.Path, "/cargo/"); path {
	case "config.json":
		reply(w, http.StatusOK, map[string]any{"dl": r.base + "/cargo/dl", "api": r.base + "/cargo", "auth-required": true})
	case "gu/ar/guarded":
		fmt.Fprintf(w, `{"name":"guarded","vers":"1.0.0","deps":[],"cksum":"%x","features":{},"yanked":false}`+"\n", sha256.Sum256(crate))
	case "dl/guarded/1.0.0/download":
		w.Write(crate)
	case "api/v1/crates/guarded/owners":
		reply(w, http.StatusOK, map[string]any{"users": []any{map[string]any{"id": 1, "login": "somebody"}}})
	default:
		http.NotFound(w, req)
	}
}

func goModule(w http.ResponseWriter, req *http.Request) {
	const mod = "module example.com/guarded\n\ngo 1.21\n"
	switch strings.TrimPrefix(req.URL.Path, "/go/example.com/guarded/") {
	case "@v/list":
		fmt.Fprintln(w, "v1.0.0")
	case "@latest", "@v/v1.0.0.info":
		reply(w, http.StatusOK, map[string]any{"Version": "v1.0.0", "Time": "2024-01-01T00:00:00Z"})
	case "@v/v1.0.0.mod":
		fmt.Fprint(w, mod)
	case "@v/v1.0.0.zip":
		w.Write(zipped("example.com/guarded@v1.0.0/go.mod", mod, "example.com/guarded@v1.0.0/g.go", "package guarded\n\nconst Is = \"installed\"\n"))
	default:
		http.NotFound(w, req)
	}
}

func (r *Registry) github(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("X-OAuth-Scopes", "repo, gist, read:org")
	switch path := strings.TrimPrefix(req.URL.Path, "/api/"); {
	case path == "v3/" || path == "v3":
		reply(w, http.StatusOK, map[string]any{"current_user_url": r.base + "/api/v3/user"})
	case path == "v3/user":
		reply(w, http.StatusOK, map[string]any{"login": "octocat"})
	case path == "v3/gists" && req.Method == http.MethodPost:
		r.keep(req)
		reply(w, http.StatusCreated, map[string]any{"html_url": r.base + "/gist/1"})
	case path == "graphql":
		r.keep(req)
		reply(w, http.StatusOK, map[string]any{"data": map[string]any{"viewer": map[string]any{"login": "octocat"}}})
	default:
		reply(w, http.StatusNotFound, map[string]any{"message": "Not Found"})
	}
}

// lfs is the batch API of git's large files, with the basic transfer.
func (r *Registry) lfs(w http.ResponseWriter, req *http.Request) {
	path := strings.TrimPrefix(req.URL.Path, "/lfs/")
	switch {
	case path == "objects/batch":
		var in struct {
			Operation string
			Objects   []struct {
				OID  string
				Size int64
			}
		}
		if json.Unmarshal(r.keep(req), &in) != nil {
			reply(w, http.StatusBadRequest, map[string]any{"message": "no batch"})
			return
		}
		var objects []any
		for _, o := range in.Objects {
			e := map[string]any{"oid": o.OID, "size": o.Size}
			r.mu.Lock()
			_, has := r.objects[o.OID]
			r.mu.Unlock()
			if in.Operation == "download" == has {
				e["actions"] = map[string]any{in.Operation: map[string]any{"href": r.base + "/lfs/" + o.OID}}
			}
			objects = append(objects, e)
		}
		w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
		json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": objects})
	case strings.HasPrefix(path, "locks"):
		http.NotFound(w, req)
	case req.Method == http.MethodPut:
		b := r.keep(req)
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != path {
			reply(w, http.StatusBadRequest, map[string]any{"message": "another file"})
			return
		}
		r.mu.Lock()
		r.objects[path] = b
		r.mu.Unlock()
	default:
		r.mu.Lock()
		b, has := r.objects[path]
		r.mu.Unlock()
		if !has {
			http.NotFound(w, req)
			return
		}
		w.Write(b)
	}
}

// tarball is a .tar.gz of name, content, name, content, ...
func tarball(files ...string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	t := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		t.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		t.Write([]byte(files[i+1]))
	}
	t.Close()
	z.Close()
	return b.Bytes()
}

func zipped(files ...string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			w.Write([]byte(files[i+1]))
		}
	}
	z.Close()
	return b.Bytes()
}

func wheel() []byte {
	const info = "guarded-1.0.0.dist-info/"
	return zipped("guarded.py", "state = 'installed'\n",
		info+"METADATA", "Metadata-Version: 2.1\nName: guarded\nVersion: 1.0.0\n",
		info+"WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info+"RECORD", "guarded.py,,\n"+info+"METADATA,,\n"+info+"WHEEL,,\n"+info+"RECORD,,\n")
}
