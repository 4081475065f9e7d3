package ssh

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/internal/testutil"
	"guard/rotate"
)

func revokeNow(t *testing.T, j rotate.Job, emergency bool) {
	t.Helper()
	j.Emergency, j.Live = emergency, !emergency
	must(t, Key{}.Revoke(ctx, j))
}

// What the old key's line forbids, the new one's forbids too; nobody else's line changes.
func TestLineKeepsItsRestrictions(t *testing.T) {
	srv := start(t)
	before, line := newKey(t, "deploy key of ci")
	after, _ := newKey(t, "")
	_, other := newKey(t, "other")
	options := "from=\"127.0.0.1,10.0.0.0/8\",environment=\"A=b c\",no-pty\t"
	srv.write(t, "# "+line, other, options+line, "", "restrict "+other)
	j := job(srv, before, after)
	if os.Getuid() != 0 {
		delete(j.Options, "admin")
	}
	fresh := options + lineOf(t, after) + " deploy key of ci"
	want := "# " + line + "\n" + other + "\n" + options + line + "\n" + fresh + "\n\nrestrict " + other + "\n"
	for range 2 { // the second finds it done
		_, err := Key{}.Mint(ctx, j)
		must(t, err)
		if got := srv.read(t, srv.keys()); got != want {
			t.Errorf("minted:\n%s\nwant:\n%s", got, want)
		}
	}
	for range 2 {
		revokeNow(t, j, false)
		if got := srv.read(t, srv.keys()); got != strings.Replace(want, options+line+"\n", "", 1) {
			t.Errorf("revoked:\n%s", got)
		}
	}
	// In an emergency the new line takes the old one's place at once: its restrictions would
	// be lost with it.
	srv.write(t, options+line, other)
	revokeNow(t, j, true)
	if got := srv.read(t, srv.keys()); got != fresh+"\n"+other+"\n" {
		t.Errorf("emergency:\n%s", got)
	}
	// only=yes: whatever an intruder added goes.
	srv.write(t, options+line, other)
	j.Options["only"] = "yes"
	revokeNow(t, j, true)
	if got := srv.read(t, srv.keys()); got != fresh+"\n" {
		t.Errorf("only:\n%s", got)
	}
	info, err := os.Stat(srv.keys())
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	left, _ := filepath.Glob(srv.keys() + "*")
	if len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// Root's login must not be led to another file by a link in the account's home.
func TestLinkInTheHome(t *testing.T) {
	root(t)
	srv := start(t)
	before, line := newKey(t, "x")
	after, _ := newKey(t, "x")
	precious := srv.file("precious")
	must(t, os.WriteFile(precious, []byte(line+"\n"), 0o644))
	must(t, os.Symlink(precious, srv.keys()))
	j := job(srv, before, after)
	j.Emergency = true
	if err := (Key{}).Revoke(ctx, j); err == nil || !strings.Contains(err.Error(), "cannot be changed by app") {
		t.Error(err)
	}
	if got := srv.read(t, precious); got != line+"\n" {
		t.Errorf("the file changed: %s", got)
	}
}

// An intruder who is logged in keeps his sessions, until the provider ends them: a shell,
// a connection that never opened a session (ssh -N), and what his shell started.
func TestOpenSessions(t *testing.T) {
	root(t)
	for _, told := range []string{"ExposeAuthInfo yes", ""} {
		srv := start(t, told)
		before, line := newKey(t, "x")
		after, _ := newKey(t, "x")
		other, otherLine := newKey(t, "other")
		srv.write(t, line, otherLine)
		j := job(srv, before, after)
		_, err := Key{}.Mint(ctx, j)
		must(t, err)
		_, alive, err := srv.session(t, before, false)
		must(t, err)
		_, otherAlive, err := srv.session(t, other, false)
		must(t, err)
		bare, err := srv.with(before, false)
		must(t, err)
		defer bare.Close()
		// Refused for new logins, and nothing else happened: that is not enough.
		srv.write(t, lineOf(t, after), otherLine)
		if err := (Key{}).Verify(ctx, j, j.Current); !refused(err) {
			t.Fatal(err)
		}
		if !alive() || !otherAlive() {
			t.Fatal("the sessions ended by themselves: this test shows nothing")
		}
		revokeNow(t, j, false)
		if alive() {
			t.Error("the key's session lives on")
		}
		if _, _, err := bare.SendRequest("keepalive@guard", true, nil); err == nil {
			t.Error("the connection without a session lives on")
		}
		if otherAlive() != (told != "") {
			t.Errorf("%q: another key's session is alive: %v", told, otherAlive())
		}
		_, otherAlive, err = srv.session(t, other, false)
		must(t, err)
		revokeNow(t, j, true)
		if otherAlive() {
			t.Error("emergency: a session is left")
		}
		ends, rootAlive, err := (&server{Port: srv.Port, User: "root"}).session(t, srv.Boss, false)
		must(t, err)
		revokeNow(t, j, true)
		if !rootAlive() {
			t.Errorf("another account's session %d was ended", ends)
		}
	}
}

// An intruder's daemon puts the old line back, over and over. A list of revoked keys that
// is root's ends that.
func TestOldLineComesBack(t *testing.T) {
	root(t)
	srv := start(t)
	before, line := newKey(t, "x")
	after, _ := newKey(t, "x")
	srv.write(t, line)
	j := job(srv, before, after)
	revokeNow(t, j, true)
	srv.write(t, line)
	if err := (Key{}).Verify(ctx, j, j.Current); err != nil {
		t.Fatalf("the line does not let in: this test shows nothing: %v", err)
	}
	j.Options["krl"] = srv.file("krl")
	for range 2 {
		revokeNow(t, j, true)
	}
	srv.write(t, line, lineOf(t, after))
	if err := (Key{}).Verify(ctx, j, j.Current); !refused(err) {
		t.Errorf("the old key: %v", err)
	}
	if err := (Key{}).Verify(ctx, j, j.Candidate); err != nil {
		t.Errorf("the new key: %v", err)
	}
	// A list that was there keeps what it has.
	third, thirdLine := newKey(t, "x")
	j2 := job(srv, third, after, "krl", srv.file("krl"))
	srv.write(t, line, thirdLine)
	revokeNow(t, j2, true)
	srv.write(t, line, thirdLine)
	for _, v := range []guard.Secret{j.Current, j2.Current} {
		if err := (Key{}).Verify(ctx, j, v); !refused(err) {
			t.Error(err)
		}
	}
}

// Every certificate that the old authority signed dies with it, and the sessions that
// they opened; another authority's live on.
func TestAuthority(t *testing.T) {
	root(t)
	srv := start(t, "ExposeAuthInfo yes")
	before, line := newKey(t, "old")
	after, _ := newKey(t, "new")
	other, otherLine := newKey(t, "other")
	must(t, os.WriteFile(srv.file("ca.pub"), []byte(line+"\n"+otherLine+"\n"), 0o644))
	j := job(srv, before, after, "trusted", srv.file("ca.pub"), "krl", srv.file("krl"))
	_, err := CA{}.Mint(ctx, j)
	must(t, err)
	for _, v := range []guard.Secret{j.Current, j.Candidate} {
		must(t, CA{}.Verify(ctx, j, v))
	}
	ca, err := xssh.ParsePrivateKey([]byte(before))
	must(t, err)
	issued, err := certify(ca, "app")
	must(t, err)
	c, err := srv.as("app", issued)
	must(t, err)
	defer c.Close()
	_, alive, err := srv.session(t, before, true)
	must(t, err)
	_, otherAlive, err := srv.session(t, other, true)
	must(t, err)
	j.Live = true
	must(t, CA{}.Revoke(ctx, j))
	if alive() || !otherAlive() {
		t.Errorf("the old authority's session alive %v, another's %v", alive(), otherAlive())
	}
	// Somebody trusts it again; the list of revoked keys still refuses what it signed before.
	must(t, os.WriteFile(srv.file("ca.pub"), []byte(line+"\n"+lineOf(t, after)+"\n"), 0o644))
	if _, err := srv.as("app", issued); !refused(err) {
		t.Errorf("a certificate from before: %v", err)
	}
	if err := (CA{}).Verify(ctx, j, j.Current); !refused(err) {
		t.Errorf("a certificate made now: %v", err)
	}
	must(t, CA{}.Verify(ctx, j, j.Candidate))
}

// Two hosts, one of which is down: the other one's key is gone all the same, and nobody
// says that it is done.
func TestOneHostIsDown(t *testing.T) {
	srv := start(t)
	before, line := newKey(t, "x")
	after, _ := newKey(t, "x")
	srv.write(t, line)
	j := job(srv, before, after)
	if os.Getuid() != 0 {
		delete(j.Options, "admin")
	}
	down := testutil.FreePort(t)
	j.Credential.Hosts = append(j.Credential.Hosts, "127.0.0.1:"+itoa(down))
	var marks []string
	j.OnPart = func(p string) { marks = append(marks, p) }
	j.Emergency = true
	if err := (Key{}).Revoke(ctx, j); err == nil || refused(err) {
		t.Errorf("revoke: %v", err)
	}
	if len(marks) != 0 {
		t.Errorf("said to be done: %v", marks)
	}
	if _, err := srv.with(before, false); !refused(err) {
		t.Errorf("on the host that is up: %v", err)
	}
	j.Step = rotate.StepDead
	if err := (Key{}).Verify(ctx, j, j.Current); err == nil || refused(err) {
		t.Errorf("dead or alive is not known, and this was said: %v", err)
	}
	// Alive on one of two is alive; new on one of two is not there yet.
	second := start(t)
	second.write(t, line)
	must(t, os.WriteFile(srv.file("known_hosts"), []byte("[127.0.0.1]:"+srv.Port+srv.read(t, srv.file("known_hosts"))[len("127.0.0.1"):]+"[127.0.0.1]:"+second.Port+second.read(t, second.file("known_hosts"))[len("127.0.0.1"):]), 0o644))
	j.Credential.Hosts[1] = "127.0.0.1:" + second.Port
	if err := (Key{}).Verify(ctx, j, j.Current); err != nil {
		t.Errorf("accepted by one host: %v", err)
	}
	j.Step = rotate.StepVerify
	if err := (Key{}).Verify(ctx, j, j.Candidate); err == nil || refused(err) {
		t.Errorf("taken by one host of two: %v", err)
	}
}

func TestSaysWhatIsMissing(t *testing.T) {
	root(t)
	srv := start(t)
	before, line := newKey(t, "x")
	after, _ := newKey(t, "x")
	_, wrong := newKey(t, "x")
	block, err := xssh.MarshalPrivateKeyWithPassphrase(mustRaw(t, before), "", []byte("words"))
	must(t, err)
	locked := guard.NewSecret(pemOf(block))
	must(t, os.WriteFile(srv.file("known_wrong"), []byte("127.0.0.1 "+wrong+"\n"), 0o644))
	must(t, os.WriteFile(srv.file("known_none"), nil, 0o644))
	must(t, os.WriteFile(srv.file("known_revoked"), []byte("@revoked * "+strings.TrimPrefix(srv.read(t, srv.file("known_hosts")), "127.0.0.1 ")), 0o644))
	for what, change := range map[string]func(*rotate.Job){
		"":                             func(*rotate.Job) {},
		"another key than the one in":  func(j *rotate.Job) { j.Options["known_hosts"] = srv.file("known_wrong") },
		"is not in known_hosts":        func(j *rotate.Job) { j.Options["known_hosts"] = srv.file("known_none") },
		"is revoked in known_hosts":    func(j *rotate.Job) { j.Options["known_hosts"] = srv.file("known_revoked") },
		"has a passphrase":             func(j *rotate.Job) { j.Current = locked },
		"no private key":               func(j *rotate.Job) { j.Current = guard.NewSecret([]byte("what is no key")) },
		"which hosts":                  func(j *rotate.Job) { j.Credential.Hosts = []string{"*.example.test"} },
		"which account":                func(j *rotate.Job) { j.Credential.User = "a;id" },
		"option krl":                   func(j *rotate.Job) { j.Options["krl"] = "/x';id;'" },
		"option file":                  func(j *rotate.Job) { j.Options["file"] = "$(id)" },
		"option sessions":              func(j *rotate.Job) { j.Options["sessions"] = "all" },
		"has no line":                  func(j *rotate.Job) { j.Current = j.Candidate },
		"a command of its own instead": func(j *rotate.Job) { delete(j.Options, "admin") },
	} {
		srv.write(t, `command="echo hello" `+line)
		j := job(srv, before, after)
		change(&j)
		err := Key{}.Check(ctx, j)
		if what == "" {
			must(t, err)
			continue
		}
		if err == nil || !strings.Contains(err.Error(), what) || refused(err) || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("want %q: %v", what, err)
		}
		// Whoever is not the host proves nothing.
		if err := (Key{}).Verify(ctx, j, j.Current); strings.Contains(what, "known_hosts") && (err == nil || refused(err)) {
			t.Errorf("%q: verify: %v", what, err)
		}
	}
}

func TestNewKeyIsLikeTheOld(t *testing.T) {
	for _, comment := range []string{"deploy@ci", "", "two words"} {
		old, _ := newKey(t, comment)
		v, err := Key{}.Choose(rotate.Job{Credential: guard.Credential{Name: "deploy"}, Current: guard.NewSecret([]byte(old))})
		must(t, err)
		file := filepath.Join(t.TempDir(), "key")
		must(t, os.WriteFile(file, v.Reveal(), 0o600))
		out, err := exec.Command(testutil.Need(t, "ssh-keygen", "openssh-client"), "-l", "-f", file).Output()
		must(t, err)
		if got := string(out); !strings.Contains(got, " "+comment+" (ED25519)") {
			t.Errorf("%q: %s", comment, got)
		}
	}
}
