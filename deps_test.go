package guard_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// imports says which of guard's own packages each package may import besides
// the root. A change to this table is a change of the design: make it in a
// commit of its own that says why.
var imports = map[string][]string{
	".":                  {},
	"bpf":                {},
	"pty":                {"pty/screen"},
	"pty/screen":         {},
	"matcher":            {},
	"matcher/formats":    {},
	"policy":             {},
	"approve":            {},
	"audit":              {},
	"audit/export":       {"audit"},
	"vault":              {},
	"vault/hashivault":   {"vault"},
	"vault/vaulttest":    {"vault"},
	"rotate":             {"vault"},
	"rotate/postgres":    {"rotate"},
	"rotate/exec":        {"rotate"},
	"rotate/mysql":       {"rotate"},
	"rotate/redis":       {"rotate"},
	"rotate/ssh":         {"rotate"},
	"rotate/web":         {"rotate", "vault"},
	"rotate/rotatetest":  {"rotate", "vault"},
	"supervisor":         {"matcher", "policy", "audit", "pty", "pty/screen", "supervisor/sandbox", "supervisor/notify"},
	"supervisor/sandbox": {},
	"supervisor/notify":  {},
	"broker":             {"vault", "policy", "audit", "matcher"},
	"broker/pack":        {"matcher"},
	"broker/http":        {"broker", "broker/pack", "vault", "policy", "audit", "matcher"},
	"broker/dns":         {},
	"broker/postgres":    {"broker", "vault", "policy", "audit", "matcher"},
	"broker/ssh":         {"broker", "broker/pack", "vault", "policy", "audit", "matcher"},
	"broker/mysql":       {"broker", "vault", "policy", "audit", "matcher"},
	"broker/redis":       {"broker", "vault", "policy", "audit", "matcher"},
	"broker/mongo":       {"broker", "vault", "policy", "audit", "matcher"},
	"broker/mail":        {"broker", "vault", "policy", "audit", "matcher"},
	"broker/aws":         {"broker", "vault", "policy", "audit", "matcher"},
	"broker/exec":        {"broker", "vault", "policy", "audit", "matcher"},
	"internal/scan":      {"matcher", "matcher/formats"},
	"internal/testutil":  {},
}

// only names modules that belong to one package: the kernel boundary of each
// is there and nowhere else.
var only = map[string][]string{
	"github.com/cilium/ebpf":           {"bpf"},
	"github.com/creack/pty":            {"pty", "internal/bench", "internal/demo", "internal/testutil"},
	"github.com/flier/gohs":            {"matcher", "matcher/formats"},
	"github.com/charmbracelet/x/vt":    {"pty/screen"},
	"github.com/zalando/go-keyring":    {"vault"},
	"github.com/fsnotify/fsnotify":     {"supervisor"},
	"github.com/google/nftables":       {"supervisor/sandbox"},
	"github.com/vishvananda/netlink":   {"supervisor/sandbox"},
	"github.com/miekg/dns":             {"broker/dns"},
	"golang.org/x/mod":                 {"audit"},
	"filippo.io/age":                   {"vault"},
	"github.com/cedar-policy/cedar-go": {"policy"},
	"golang.org/x/crypto":              {"vault", "rotate/postgres", "rotate/ssh", "broker/ssh"},
}

func goFiles(t *testing.T, visit func(pkg, path string)) {
	t.Helper()
	n := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !d.IsDir() {
			n++
			visit(filepath.ToSlash(filepath.Dir(path)), path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 5 {
		t.Fatalf("only %d Go files found: this test looked in the wrong place", n)
	}
}

func TestImports(t *testing.T) {
	goFiles(t, func(pkg, path string) {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		test := strings.HasSuffix(path, "_test.go")
		for _, spec := range f.Imports {
			imp, _ := strconv.Unquote(spec.Path.Value)
			for mod, owners := range only {
				if (imp == mod || strings.HasPrefix(imp, mod+"/")) && !slices.Contains(owners, pkg) && !test {
					t.Errorf("%s imports %s, which belongs to %v", path, imp, owners)
				}
			}
			own, ok := strings.CutPrefix(imp, "guard/")
			if !ok || strings.HasPrefix(pkg, "cmd/") || strings.HasPrefix(pkg, "internal/") {
				continue
			}
			if test && (strings.HasPrefix(own, "internal/testutil") || own == "rotate/rotatetest" || own == "vault/vaulttest") {
				continue
			}
			allowed, known := imports[pkg]
			if !known {
				t.Errorf("%s: package %s is not in the table of deps_test.go", path, pkg)
			} else if own != pkg && !slices.Contains(allowed, own) {
				t.Errorf("%s: %s may not import %s", path, pkg, own)
			}
		}
		if pkg == "." && !test {
			for _, spec := range f.Imports {
				if imp, _ := strconv.Unquote(spec.Path.Value); strings.Contains(imp, ".") {
					t.Errorf("%s: the root imports the standard library only, not %s", path, imp)
				}
			}
		}
	})
}

// reveals counts the calls of Secret.Reveal outside tests, a package at a time.
// A number here goes up in a commit that says what the new call is for.
func TestRevealIsCalledInFewPlaces(t *testing.T) {
	got := map[string]int{}
	goFiles(t, func(pkg, path string) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(b), ".Reveal()"); n > 0 && pkg != "." {
			got[pkg] += n
		}
	})
	for pkg, n := range got {
		if n > reveals[pkg] {
			t.Errorf("%s calls Reveal %d times; the table says %d", pkg, n, reveals[pkg])
		}
	}
}

var reveals = map[string]int{
	"matcher":           4,
	"vault":             14, // each unlocker's own: a recovery code, an age passphrase, a transit token; what is held from elsewhere, and the sample of it
	"vault/hashivault":  3,  // a token and a secret id that log in, a value that is put
	"vault/vaulttest":   2,
	"broker":            2,
	"broker/http":       4,
	"broker/postgres":   2,
	"broker/ssh":        2, // a key is parsed to sign with it
	"broker/mysql":      2,
	"broker/redis":      2,
	"broker/mongo":      2,
	"broker/mail":       2,
	"broker/aws":        2, // SigV4's signing key is derived from it
	"broker/exec":       2, // the command's environment or descriptor
	"rotate/postgres":   4,
	"rotate/exec":       4,
	"rotate/web":        3, // the last: what an issuer's request carries
	"rotate/mysql":      3,
	"rotate/redis":      2,
	"rotate/ssh":        2, // a key is parsed to log in with it, and its comment read
	"rotate":            5, // a password is taken out of a URL, and put into one
	"rotate/rotatetest": 4,
	"audit":             1,
	"bpf":               1,
	"cmd/guard":         8, // the last: a recovery code on the terminal, and a session's token at a store, to seal it
	"supervisor":        2,
}
