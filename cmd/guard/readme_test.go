//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// tree is the top of the source tree, seen from this package.
const tree = "../.."

// mdBlock is one fenced block of a paper.
type mdBlock struct {
	lang, text string
	line       int // of the opening fence
}

func readPaper(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(tree, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func blocks(t *testing.T, text string) (out []mdBlock) {
	t.Helper()
	var in *mdBlock
	for i, line := range strings.Split(text, "\n") {
		lang, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && in == nil:
			in = &mdBlock{lang: lang, line: i + 1}
		case fence:
			out, in = append(out, *in), nil
		case in != nil:
			in.text += line + "\n"
		}
	}
	if in != nil {
		t.Fatalf("the block of line %d has no end", in.line)
	}
	return out
}

// readme is what the reader brings, and what stands in for it.
type readme struct {
	home, bin, guard string
	token            string
	env              []string
	port             string // of the PostgreSQL server, for 5432
}

func newReadme(t *testing.T) *readme {
	dir := t.TempDir()
	r := &readme{home: filepath.Join(dir, "home"), bin: filepath.Join(dir, "bin"), token: "ghp_" + testutil.Random(36)}
	var err error
	if r.guard, err = exec.LookPath("guard"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{r.home, r.bin, filepath.Join(r.home, "bin")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	password := testutil.Random(24)
	write(filepath.Join(r.home, "pat.txt"), r.token+"\n", 0o600)
	write(filepath.Join(r.home, "db-password.txt"), password+"\n", 0o600)
	write(filepath.Join(r.home, "bin", "claude"), "#!/bin/sh\ntest -n \"$GITHUB_TOKEN\"\n", 0o755)

	// GitHub is a server of the test's, and guard run is told where.
	ca := testutil.NewCA(t)
	api := testutil.APIServer(t, ca, r.token, "api.github.com")
	write(filepath.Join(r.bin, "guard"), fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = run ]; then\n\tshift\n\texec %s run --resolve api.github.com:443:%s --ca %s \"$@\"\nfi\nexec %s \"$@\"\n",
		r.guard, strings.TrimPrefix(api.URL, "https://"), ca.File, r.guard), 0o755)

	db := pgServer.Get(t)
	db.Exec(t, "drop role if exists app; create role app login password '"+password+"'")
	if _, r.port, err = net.SplitHostPort(db.Addr); err != nil {
		t.Fatal(err)
	}
	r.env = []string{
		"HOME=" + r.home, "GUARD_HOME=" + filepath.Join(r.home, "guard"), "PATH=" + r.bin + ":" + filepath.Join(r.home, "bin") + ":" + systemPath,
		"LANG=C.UTF-8", "TZ=UTC", "TERM=xterm",
	}
	return r
}

// TestReadme does what README.md says: every sh block, in order, in one shell,
// and compares what the output blocks show.
func TestReadme(t *testing.T) {
	pgServer.Get(t) // shared with the scripts; TestMain stops it
	testutil.Leftovers(t)
	t.Run("blocks", func(t *testing.T) {
		all := blocks(t, readPaper(t, "README.md"))
		r := newReadme(t)
		var script strings.Builder
		n := 0
		for i, b := range all {
			if b.lang == "sh" {
				n++
				fmt.Fprintf(&script, "%s\nprintf '\\n\\036%d\\n'\n", strings.ReplaceAll(b.text, "5432", r.port), i)
			}
		}
		if n < 8 {
			t.Fatalf("README.md has %d sh blocks", n)
		}
		file := filepath.Join(r.bin, "readme.sh")
		if err := os.WriteFile(file, []byte(script.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-e", file)
		cmd.Dir, cmd.Env = r.home, r.env
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		runErr := cmd.Run()
		mask := strings.NewReplacer(r.token, "[the token]")
		compareBlocks(t, all, out.String(), mask)
		if runErr != nil || t.Failed() {
			t.Errorf("%v\n%s", runErr, mask.Replace(errs.String()))
		}

		// The value was handed around, and is nowhere.
		_ = filepath.WalkDir(r.home, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			return nil
		})
		testutil.Search(t, r.token, out.Bytes(), errs.Bytes(), r.home)
	})
}

// compareBlocks holds what each sh block printed against the output block after it.
func compareBlocks(t *testing.T, all []mdBlock, printed string, mask *strings.Replacer) {
	t.Helper()
	texts := map[int]string{} // by the block's number, which is printed after its text
	last := ""
	for i, part := range strings.Split(printed, "\036") {
		if i > 0 {
			mark, rest, _ := strings.Cut(part, "\n")
			n, err := strconv.Atoi(mark)
			if err != nil {
				t.Fatalf("the mark %q is no number", mark)
			}
			texts[n], part = last, rest
		}
		last = part
	}
	for i, b := range all {
		if b.lang != "sh" {
			continue
		}
		text, ran := texts[i]
		if !ran {
			t.Errorf("README.md:%d: this block failed, after printing\n%s", b.line, mask.Replace(last))
			return
		}
		if i+1 < len(all) && all[i+1].lang == "output" && !wildcard(all[i+1].text).MatchString(normal(text)) {
			t.Errorf("README.md:%d: the block above printed\n%s", all[i+1].line, mask.Replace(text))
		}
	}
}

var blanks = regexp.MustCompile(` +`)

// normal drops what a table's width decides.
func normal(s string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		lines = append(lines, strings.TrimRight(blanks.ReplaceAllString(line, " "), " "))
	}
	return strings.Join(lines, "\n") + "\n"
}

// wildcard makes a pattern of an output block: ... is anything within a line,
// and any number of lines where it is alone in one.
func wildcard(want string) *regexp.Regexp {
	var p strings.Builder
	p.WriteString(`\A`)
	for line := range strings.SplitSeq(strings.TrimSuffix(normal(want), "\n"), "\n") {
		if line == "..." {
			p.WriteString(`(?:.*\n)*`)
			continue
		}
		p.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), `\.\.\.`, `.*`) + `\n`)
	}
	p.WriteString(`\z`)
	return regexp.MustCompile(p.String())
}

var (
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	guardCall  = regexp.MustCompile(`\bguard ([a-z]+)((?: [^ #|]+)*)`)
	makeCall   = regexp.MustCompile(`\bmake ([a-z][a-z-]*)`)
	flagName   = regexp.MustCompile(`--([a-z][a-z-]+)`)
	lowerWord  = regexp.MustCompile(`^[a-z]+$`)
	linkTarget = regexp.MustCompile(`\]\(([^)#]+)\)`)
)

// helps is what every command says of itself.
func helps(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range commands() {
		cmd := exec.CommandContext(t.Context(), "guard", c.name, "--help")
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("guard %s --help: %v", c.name, err)
		}
		out[c.name] = string(b)
	}
	return out
}

// TestReadmeNamesWhatIsThere checks commands, flags and make targets that the
// README names without running them, and that what it lists as not built is not.
func TestReadmeNamesWhatIsThere(t *testing.T) {
	text := readPaper(t, "README.md")
	built, limits, ok := strings.Cut(text, "\n## Limits")
	if !ok {
		t.Fatal("README.md has no section of limits")
	}
	limits, licence, _ := strings.Cut(limits, "\n## ")
	makefile := readPaper(t, "Makefile")
	help := helps(t)
	anyFlag := strings.Join(slices.Collect(maps.Values(help)), "\n")

	var named []string
	for _, b := range blocks(t, built+licence) {
		if b.lang == "console" || b.lang == "sh" {
			named = append(named, strings.Split(b.text, "\n")...)
		}
	}
	for _, m := range codeSpan.FindAllStringSubmatch(built+licence, -1) {
		named = append(named, m[1])
	}
	calls := 0
	for _, s := range named {
		for _, m := range makeCall.FindAllStringSubmatch(s, -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
				t.Errorf("the Makefile has no target %s", m[1])
			}
		}
		if strings.HasPrefix(s, "--") {
			for _, f := range flagName.FindAllStringSubmatch(s, -1) {
				if !hasFlag(anyFlag, f[1]) {
					t.Errorf("no command has --%s", f[1])
				}
			}
		}
		for _, m := range guardCall.FindAllStringSubmatch(s, -1) {
			h, there := help[m[1]]
			if !there {
				if strings.HasPrefix(strings.TrimPrefix(s, "$ "), "guard ") {
					t.Errorf("there is no guard %s (%s)", m[1], s)
				}
				continue // a word of a sentence
			}
			calls++
			// Flags after -- belong to the agent.
			args, _, _ := strings.Cut(m[2]+" ", " -- ")
			for i, word := range strings.Fields(args) {
				if i == 0 && lowerWord.MatchString(word) && strings.Contains(h, " | ") && !regexp.MustCompile(`\b`+word+`\b`).MatchString(h) {
					t.Errorf("guard %s --help does not know %s", m[1], word)
				}
				if f := flagName.FindStringSubmatch(word); f != nil && strings.HasPrefix(word, "--") && !hasFlag(h, f[1]) {
					t.Errorf("guard %s has no --%s", m[1], f[1])
				}
			}
		}
	}
	if calls < 20 {
		t.Errorf("only %d calls of guard were found: this test looked in the wrong place", calls)
	}
	for _, m := range codeSpan.FindAllStringSubmatch(limits, -1) {
		if c := guardCall.FindStringSubmatch(m[1]); c != nil && help[c[1]] != "" && !strings.Contains(c[2], "--") {
			t.Errorf("guard %s is listed as not built, and is there", c[1])
		}
	}
	refused := 0
	for _, m := range codeSpan.FindAllStringSubmatch(limits, -1) {
		args := strings.Fields(m[1])
		switch {
		case strings.HasPrefix(m[1], "--") && len(args) == 2 && args[0] != "--profile":
			args = append([]string{"run"}, append(args, "--", "true")...)
		case args[0] == "guard" && (len(args) == 2 || strings.HasPrefix(args[2], "--")):
			args = args[1:]
		default:
			continue
		}
		refused++
		cmd := exec.CommandContext(t.Context(), "guard", args...)
		cmd.Env = append(os.Environ(), "GUARD_HOME="+t.TempDir())
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exitUsage {
			t.Errorf("%s is listed as not built, and is not refused: %v\n%s", m[1], cmd.ProcessState, out)
		}
	}
	if refused < 2 {
		t.Errorf("only %d things that are not built were tried: this test looked in the wrong place", refused)
	}
	for name := range help {
		if !strings.Contains(text, "guard "+name) {
			t.Errorf("README.md does not name guard %s", name)
		}
	}
}

func hasFlag(help, name string) bool {
	return name == "help" || regexp.MustCompile(`(?m)--`+regexp.QuoteMeta(name)+`[\[ =]`).MatchString(help)
}

// TestPapersLinkToWhatIsThere checks links between the papers, and the files they name.
func TestPapersLinkToWhatIsThere(t *testing.T) {
	goFile := regexp.MustCompile(`^[a-z_][a-z0-9_/]*\.(go|sh|txtar|toml|c|h)$`)
	for _, paper := range []string{"README.md", "DESIGN.md", "THREAT_MODEL.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"} {
		text := readPaper(t, paper)
		for _, m := range linkTarget.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(tree, m[1])); err != nil {
				t.Errorf("%s: %v", paper, err)
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "/") && goFile.MatchString(m[1]) {
				if _, err := os.Stat(filepath.Join(tree, m[1])); err != nil {
					t.Errorf("%s: %v", paper, err)
				}
			}
		}
	}
}

var (
	testSpan = regexp.MustCompile("`([a-z_/0-9]+_test\\.go):((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	testWord = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z][A-Za-z0-9_]+`)
	scriptIn = regexp.MustCompile("`(cmd/guard/testdata/[a-z0-9/-]+\\.txtar)`")
)

// TestThreatModelNamesItsTests: each adversary has a test that is there, or the
// words that there is none.
func TestThreatModelNamesItsTests(t *testing.T) {
	text := readPaper(t, "THREAT_MODEL.md")
	spans := testSpan.FindAllStringSubmatch(text, -1)
	for _, m := range spans {
		b, err := os.ReadFile(filepath.Join(tree, m[1]))
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(b), "\nfunc "+m[2]+"(") {
			t.Errorf("%s has no %s", m[1], m[2])
		}
	}
	if words := testWord.FindAllString(text, -1); len(words) != len(spans) {
		t.Errorf("%d tests are named, %d of them with their file as `file_test.go:TestName`", len(words), len(spans))
	}
	for _, m := range scriptIn.FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(tree, m[1])); err != nil {
			t.Error(err)
		}
	}
	adversaries := 0
	for part := range strings.SplitSeq(text, "\n- **An adversary who ") {
		if part = strings.SplitN(part, "\n\n## ", 2)[0]; strings.HasPrefix(part, "# ") {
			continue
		}
		part, _, _ = strings.Cut(part, "\n- **An adversary who ")
		adversaries++
		name, _, _ := strings.Cut(part, "**")
		if !testSpan.MatchString(part) && !scriptIn.MatchString(part) && !strings.Contains(part, "Does not hold") && !strings.Contains(part, "Not tested") {
			t.Errorf("an adversary who %s: no test, and no word that there is none", name)
		}
	}
	if adversaries < 20 {
		t.Errorf("only %d adversaries", adversaries)
	}
}
