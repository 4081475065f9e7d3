package scan

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
	"guard/matcher"
	"guard/matcher/formats"
)

func allFormats(t testing.TB, o formats.Options) *formats.Set {
	t.Helper()
	f, err := formats.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func testKey() []byte { return []byte("a key for fingerprints of tests") }

// rulesIn are the rules that a scan finds something of, by file.
func rulesIn(t testing.TB, s *Scanner, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := s.Files(t.Context(), []string{root}, func(f Finding) error {
		found[f.File] = append(found[f.File], f.Rule+f.Credential)
		if f.Why == "" || f.Confidence == "" || f.Encoding == "" || f.Rule != "" && (f.Provider == "" || f.Kind == "" || len(f.Fingerprint) != 16) {
			t.Errorf("%s says too little: %+v", f.File, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestEveryFormatIsFound scans a file, an archive and a stream with a credential of
// each built-in format.
func TestEveryFormatIsFound(t *testing.T) {
	t.Chdir(t.TempDir())
	set := allFormats(t, formats.Options{})
	n := 0
	var log bytes.Buffer
	for _, r := range set.Rules() {
		for seed := range uint64(2) {
			sample := formats.Sample(r.ID, seed)
			if sample == "" {
				continue
			}
			n++
			text := "some text before it\nexport VALUE: " + sample + "\nand after it\n"
			write(t, filepath.Join("files", fmt.Sprintf("%s-%d", r.ID, seed)), text)
			log.WriteString(text + strings.Repeat("a line of a log that has nothing\n", 50))
		}
	}
	if n < 100 {
		t.Fatalf("only %d samples: this test looked in the wrong place", n)
	}
	s := New(Options{Formats: set, Key: testKey, Least: formats.Low})
	found := rulesIn(t, s, "files")
	missed := n - len(found)
	for name := range found {
		if strings.Contains(name, "name") {
			t.Errorf("%s", name)
		}
	}
	if missed*100 > 2*n {
		t.Errorf("%d of %d were missed", missed, n)
		entries, err := os.ReadDir("files")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if found[filepath.Join("files", e.Name())] == nil {
				t.Logf("missed: %s", e.Name())
			}
		}
	}
	write(t, "log.gz", string(gz(t, log.Bytes())))
	if got := len(rulesIn(t, New(Options{Formats: set, Key: testKey, Least: formats.Low}), "log.gz")["log.gz!log"]); got*100 < 97*n {
		t.Errorf("%d of %d were found in an archive", got, n)
	}
}

// TestNoSecretNoFinding: what only looks like one.
func TestNoSecretNoFinding(t *testing.T) {
	t.Chdir(t.TempDir())
	hexDigits := func(n int) string { return fmt.Sprintf("%x", testutil.Random(n/2)) }
	for name, text := range map[string]string{
		"package-lock.json": fmt.Sprintf(`{"lockfileVersion": 3, "packages": {"node_modules/a": {"version": "1.0.0", "resolved": "https://registry.npmjs.org/a/-/a-1.0.0.tgz", "integrity": "sha512-%s=="}}}`, strings.Repeat(testutil.Random(43), 2)),
		"go.sum":            "example.com/a v1.0.0 h1:" + testutil.Random(43) + "=\n",
		"Cargo.lock":        "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"" + hexDigits(64) + "\"\n",
		"git.log":           "commit " + hexDigits(40) + "\nMerge: " + hexDigits(40) + " " + hexDigits(40) + "\n\n    use the new token endpoint\n",
		"ids.txt":           "request_id=8d7e5b4c-2f10-4d5a-9a35-1b5e0c7f6a21 trace=" + hexDigits(32) + " secret_version=12\n",
		"sums":              hexDigits(64) + "  guard.tar.gz\n" + hexDigits(32) + "  guard.zip\n",
		"code.go":           "func token(secret string) error {\n\tpassword := os.Getenv(\"PASSWORD\")\n\tapiKey := flag.String(\"api-key\", \"\", \"the key\")\n\treturn login(password, *apiKey, secret)\n}\n",
		"config.yml":        "password: ${DB_PASSWORD}\napi_key: <your-api-key>\ntoken: changeme\nsecret: xxxxxxxxxxxxxxxxxxxx\n",
		"page.min.js":       strings.Repeat("!function(e,t){var n=e.token,r=t.secret||n.key;return r(n)}(a,b);", 300),
		"docs.md":           "Use `AKIA" + "IOSFODNN7EXAMPLE` and `wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY` as in the manual.\n",
	} {
		write(t, name, text)
	}
	s := New(Options{Formats: allFormats(t, formats.Options{}), Key: testKey, Least: formats.Medium})
	for file, rules := range rulesIn(t, s, ".") {
		t.Errorf("%s: %v", file, rules)
	}
	if n := s.Summary().Files; n != 10 {
		t.Errorf("%d files", n)
	}
}

// TestKnownBeforeFormat: a value that is known is one finding, by its name; also in
// a stream, where the format may be settled later.
func TestKnownBeforeFormat(t *testing.T) {
	t.Chdir(t.TempDir())
	token := formats.Sample("github-pat", 7)
	other := formats.Sample("github-pat", 8)
	if token == "" || token == other {
		t.Fatal("there is no such sample")
	}
	m, err := matcher.New([]guard.Value{{ID: tokID, Secret: guard.NewSecret([]byte(token))}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	set := allFormats(t, formats.Options{Ignore: func(b []byte) bool { return string(b) == other }})
	filler := strings.Repeat("some text that is no secret\n", 200_000)
	write(t, "small", "x: "+token+"\ny: "+other+"\n")
	write(t, "large", filler+"x: "+token+"\ny: "+other+"\n"+filler)
	names := []string{"small", "large"}
	for _, after := range []int{0, 1, 2, len(token) / 2} { // where a piece ends in or behind it
		name := fmt.Sprintf("cut%d", after)
		names = append(names, name)
		write(t, name, filler[:wholeFile-after-len(token)-3]+"\nx:"+token+"\ny: "+other+"\n")
	}
	found := rulesIn(t, New(Options{Values: m, Formats: set, Key: testKey}), ".")
	for _, name := range names {
		if got := found[name]; len(got) != 1 || got[0] != "tok" {
			t.Errorf("%s: %v", name, got)
		}
	}
}
