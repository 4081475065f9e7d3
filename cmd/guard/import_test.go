package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// TestImportParsers: what each format says, and what it does not.
func TestImportParsers(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range []struct {
		format, text string
		want         []string // label|value|hosts|user, or label|-skip or label|-ref
	}{
		{"dotenv", "A=1\n export  B = two words # c\nC='a#b'\nD=\"x\\n\\\"y\\\" \\$z\" # c\n#E=1\nF=\nnot a line\nG: yaml\n", []string{"A|1||", "B|two words||", "C|a#b||", "D|x\n\"y\" $z||", "G|yaml||"}},
		{"dotenv", "\xef\xbb\xbfA=a#b\r\nB='multi\nline'\r\nC=\"open\nD=1", []string{"A|a#b||", "B|multi\nline||", "C|-skip", "D|1||"}},
		{"dotenv", "A=${B}\nC=\"x$(y)\"\nD='${lit}'\nE=`z`\nF=$G\nH=pa$$word\n", []string{"A|-ref", "C|-ref", "D|${lit}||", "E|-skip", "F|-ref", "H|pa$$word||"}},
		{"dotenv", "AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=sec\nAWS_SESSION_TOKEN=tok\n", []string{`aws|{"AccessKeyId":"id","SecretAccessKey":"sec","SessionToken":"tok"}||id`}},
		{"dotenv", "AWS_SECRET_ACCESS_KEY=sec\n", []string{"aws|-skip"}},
		{"shell", "export A=\"a b\" B='c'd\\ e; C=1 cmd D=2\nset -gx E f\nset g h\nalias x='y=z'\necho K=1\nexport L=$(m) N=\"$o\" P='$q'\n# export R=1\nif true; then export S=1; fi\n", []string{"A|a b||", "B|cd e||", "C|1||", "E|f||", "L|-ref", "N|-ref", "P|$q||", "S|1||"}},
		{"aws", "[a]\naws_access_key_id=i\naws_secret_access_key = s\n[profile b]\n# aws_secret_access_key=x\naws_secret_access_key=t\ns3 =\n  aws_secret_access_key=nested\n", []string{"aws-a|s||i", "aws-b|-skip"}},
		{"netrc", "# machine x password y\nmachine a login l password p\nmachine b\n\tpassword \"q \\\"r\"\n\tlogin m\nmacdef init\nmachine no password no\n\nmachine c password password\ndefault password d\n", []string{"netrc-a|p|a|l", "netrc-b|q \"r|b|m", "netrc-c|password|c|", "netrc-|d||"}},
		{"npmrc", "registry=https://r.corp/x/\n//registry.npmjs.org/:_authToken=a\n//r.corp/x/:_authToken=\"b\"\n; //c/:_authToken=c\n//d/:_password=" + b64("dd") + "\n//d/:username=du\n//e/:_auth=" + b64("eu:ee") + "\n//f/:_authToken=${NPM}\n_authToken=g\n//h/:_auth=???\n",
			[]string{"npm|a||", "npm-r.corp|b|r.corp|", "npm-d|dd|d|du", "npm-e|ee|e|eu", "npm-f|-ref", "npm-r.corp|g|r.corp|", "npm-h|-skip"}},
		{"docker", `{"auths":{"r.corp":{"auth":"` + b64("u:p:q") + `"},"https://index.docker.io/v1/":{"identitytoken":"i"},"x":{}},"credsStore":"auth"}`, []string{"docker-r.corp|p:q|r.corp|u", "docker-hub|i||"}},
		{"docker", `{"auths":{"r.corp":{"auth":`, nil},
		{"gh", "github.com:\n    users:\n        me:\n            oauth_token: t1\n    git_protocol: https\n    oauth_token: \"t2\"\nghe.corp:\n    oauth_token: t3\n# oauth_token: t4\n", []string{"github-pat|t1||me", "github-pat|t2||", "github-ghe.corp|t3|ghe.corp|"}},
		{"kube", "clusters:\n- cluster:\n    server: https://k:6443\n  name: c\n- name: d\n  cluster: {server: x}\ncontexts:\n- context:\n    cluster: c\n    user: u\n  name: n\nusers:\n- name: u\n  user:\n    token: tok\n- name: v\n  user:\n    username: vu\n    password: 'pw'\n", []string{"kube-u|tok|k:6443|", "kube-v|pw||vu"}},
		{"kube", `{"clusters":[{"name":"c","cluster":{"server":"https://k"}}],"contexts":[{"name":"n","context":{"cluster":"c","user":"u"}}],"users":[{"name":"a","user":{"token":"t0"}},{"name":"u","user":{"token":"t"}}]}`, []string{"kube-a|t0||", "kube-u|t|k|"}},
		{"pip", "[global]\nindex-url = https://u:p%40ss@pypi.corp.x/simple\nextra-index-url =\n    https://pypi.org/simple\n    https://only@b.x/s\n", []string{"pip-pypi.corp.x|p@ss|pypi.corp.x|u"}},
		{"pypirc", "[distutils]\nindex-servers = pypi corp\n[pypi]\nusername=__token__\npassword = p%q\n[corp]\nrepository: https://c.corp/x\nusername=u\npassword=w\n[testpypi]\npassword=t\n", []string{"pypi|p%q||__token__", "pypi-corp|w|c.corp|u", "pypi-testpypi|t|test.pypi.org|"}},
		{"git", "https://u:p%40q@h.corp\nhttps://tok:x-oauth-basic@i.corp/x\nhttps://only@j.corp\nhttps://k.corp\nhttps://u:%zz@l\n", []string{"git-h.corp|p@q|h.corp|u", "git-i.corp|tok|i.corp|", "git-j.corp|only|j.corp|"}},
		{"gcloud", `{"type":"authorized_user","client_secret":"c","refresh_token":"r\u0041"}`, []string{"gcloud-login|rA|oauth2.googleapis.com|"}},
		{"ssh", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nx\n-----END RSA PRIVATE KEY-----\n", []string{"ssh|-skip"}},
		{"ssh", "ssh-ed25519 AAAA\n", nil},
	} {
		var got []string
		for _, f := range importParser(c.format)([]byte(c.text)) {
			switch {
			case f.skip != "":
				got = append(got, f.label+"|-skip")
			case f.ref:
				got = append(got, f.label+"|-ref")
			default:
				got = append(got, fmt.Sprintf("%s|%s|%s|%s", f.label, f.value, strings.Join(f.hosts, ","), f.user))
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %q:\n got %q\nwant %q", c.format, c.text, got, c.want)
		}
	}
}

// rewriteAll puts placeholders into text for all that it holds, as the plan does.
func rewriteAll(format string, text []byte, placeholder func(i int, value []byte) string) (out []byte, values [][]byte) {
	f := &importFile{format: format, data: text}
	var items []*importItem
	for i, c := range importParser(format)(text) {
		if c.skip != "" || c.ref || len(c.value) < 8 || importMark(string(c.value)) {
			continue
		}
		items = append(items, &importItem{stored: true, placeholder: placeholder(i, c.value), places: []*importPlace{{file: f, c: c, stay: c.stay}}})
	}
	out, done := rewritten(f, items)
	for _, pl := range done {
		values = append(values, pl.c.value)
	}
	return out, values
}

// FuzzImport holds, for whatever a file holds: what a parser says lies in the file,
// and a file that is rewritten reads back as placeholders, with all else in its place.
func FuzzImport(f *testing.F) {
	seeds, err := filepath.Glob("testdata/import/*")
	if err != nil || len(seeds) < 12 {
		f.Fatalf("%d files in the corpus, %v", len(seeds), err)
	}
	for _, p := range seeds {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		format, _, _ := strings.Cut(filepath.Base(p), "-")
		i := slices.Index(importFormats, format)
		if i < 0 {
			f.Fatalf("%s: no format", p)
		}
		f.Add(uint8(i), b)
	}
	f.Fuzz(func(t *testing.T, n uint8, text []byte) {
		format := importFormats[int(n)%len(importFormats)]
		before := bytes.Clone(text)
		for _, c := range importParser(format)(text) {
			if c.from < 0 || c.to < c.from || c.to > len(text) {
				t.Fatalf("%s: %d to %d of %d bytes", format, c.from, c.to, len(text))
			}
			for _, m := range c.more {
				if m.from < 0 || m.to < m.from || m.to > len(text) {
					t.Fatalf("%s: changes %d to %d of %d bytes", format, m.from, m.to, len(text))
				}
			}
		}
		out, values := rewriteAll(format, text, func(i int, v []byte) string { return strings.Repeat("P", max(8, len(v)%64)) + fmt.Sprint(i) })
		if !bytes.Equal(text, before) {
			t.Fatalf("%s: the parser changed the file", format)
		}
		if len(values) == 0 {
			return
		}
		again := importParser(format)(out)
		n2 := 0
		for _, c := range again {
			if bytes.HasPrefix(c.value, []byte("PPPPPPPP")) || importMark(string(c.value)) {
				n2++
			}
		}
		if n2 < len(values) {
			t.Fatalf("%s: %d values were replaced, and %d read back", format, len(values), n2)
		}
	})
}

// TestImportRewriteKeepsTheRest: all but the value stays byte for byte.
func TestImportRewriteKeepsTheRest(t *testing.T) {
	v := testutil.Random(24)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const ph = "Placeholder-_0123456789x"
	for format, texts := range map[string][]string{
		"dotenv": {"#\r\nA_KEY=%s # c\r\nB=1", "A='%s'", "  export A = \"%s\"  # %[1]s\n"},
		"shell":  {"a=1\nexport A=%s;b\n", "set -gx A %s # x\n"},
		"netrc":  {"machine a\r\n\tlogin b\r\n\tpassword %s\r\n", "default password \"%s\""},
		"npmrc":  {"a=b\n//h/:_authToken=%s\nc=d"},
		"docker": {"{\n\t\"auths\": {\"h\": {\"registrytoken\": \"%s\"}},\n\t\"x\": 1}\n"},
		"gh":     {"h:\n  oauth_token: %s # c\n  user: x\n", "h:\n  oauth_token: '%s'\n"},
		"pypirc": {"[a]\npassword:%s\n"},
		"pip":    {"[global]\nindex-url = https://u:%s@pypi.corp.x/simple\n"},
		"git":    {"https://a:%s@h/x\nhttps://b\n"},
	} {
		for _, text := range texts {
			in, want := fmt.Sprintf(text, v), fmt.Sprintf(text, ph)
			out, values := rewriteAll(format, []byte(in), func(int, []byte) string { return ph })
			if strings.Contains(text, "  # %[1]s") { // a comment behind a value is not one that guard knows
				want = fmt.Sprintf("  export A = \"%s\"  # %s\n", ph, v)
			}
			if len(values) != 1 || string(out) != want {
				t.Errorf("%s: %q became %q", format, in, out)
			}
		}
	}
	in, want := fmt.Sprintf("# old: A=%s\nA=%s\n", v, v), fmt.Sprintf("# old: A=%s\nA=%s\n", ph, ph)
	if out, _ := rewriteAll("dotenv", []byte(in), func(int, []byte) string { return ph }); string(out) != want {
		t.Errorf("a comment keeps the value: %q", out)
	}
	in, want = `{"auths":{"h":{"auth":"`+b64("u:"+v)+`"}}}`, `{"auths":{"h":{"auth":"`+b64("u:"+ph)+`"}}}`
	if out, _ := rewriteAll("docker", []byte(in), func(int, []byte) string { return ph }); string(out) != want {
		t.Errorf("basic: %q", out)
	}
	// A placeholder that the file's quotes cannot hold is not written.
	if out, done := rewriteAll("dotenv", []byte("A='"+v+"'"), func(int, []byte) string { return "it's" }); len(done) > 0 {
		t.Errorf("a broken quote: %q", out)
	}
	if out, done := rewriteAll("netrc", []byte("default password "+v), func(int, []byte) string { return "two words" }); len(done) > 0 {
		t.Errorf("two words: %q", out)
	}
}

// TestReplaceFile: a file that is not the one that was read stays as it is.
func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	old, text := []byte("old"), []byte("new text")
	fresh := func() os.FileInfo {
		t.Helper()
		os.RemoveAll(path)
		if err := os.WriteFile(path, old, 0o640); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	other := filepath.Join(dir, "other")
	for name, change := range map[string]func() error{
		"changed":  func() error { return os.WriteFile(path, []byte("odd"), 0o640) },
		"longer":   func() error { return os.WriteFile(path, []byte("old and more"), 0o640) },
		"gone":     func() error { return os.Remove(path) },
		"replaced": func() error { return os.Rename(other, path) },
		"link":     func() error { return os.Rename(other+"-link", path) },
		"folder":   func() error { os.Remove(path); return os.Mkdir(path, 0o700) },
	} {
		fi := fresh()
		if err := os.WriteFile(other, old, 0o640); err != nil {
			t.Fatal(err)
		}
		os.Remove(other + "-link")
		if err := os.Symlink("other", other+"-link"); err != nil {
			t.Fatal(err)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if err := replaceFile(path, old, fi, text, 0o640); err == nil {
			t.Errorf("%s: replaced", name)
		}
		for _, p := range []string{path, other} {
			if b, err := os.ReadFile(p); err == nil && bytes.Equal(b, text) {
				t.Errorf("%s: %s was written", name, p)
			}
		}
	}
	fi := fresh()
	if err := replaceFile(path, old, fi, text, 0o640); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, text) {
		t.Errorf("%q, %v", b, err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".guard-import-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
