package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"

	"guard"
)

// agePlugin is an age plugin whose identity is a file: it stands for a token.
func agePlugin() int {
	p, err := plugin.New("guardtest")
	if err != nil {
		return 1
	}
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		if err := p.DisplayMessage("touch it"); err != nil {
			return nil, err
		}
		return age.ParseX25519Identity(string(data))
	})
	p.RegisterFlags(flag.CommandLine)
	flag.Parse()
	return p.Main()
}

// way is one unlocker that is conformed to what a vault expects.
type way struct {
	make  Unlocker // for Create
	open  Unlocker // for Open
	wrong Unlocker // of the same kind, which must not open it
	err   error    // of wrong
	enrol bool     // Rekey may enrol it with make
}

func private(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func x25519(t *testing.T) (id string, recipient string) {
	k, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return private(t, "id", []byte("# made for a test\n"+k.String()+"\n")), k.Recipient().String()
}

func sshKey(t *testing.T, passphrase string) (file, public string) {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	public = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p)))
	file = private(t, "id_ed25519", pem.EncodeToMemory(block))
	if err := os.WriteFile(file+".pub", []byte(public+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return file, public
}

// transitServer speaks the two operations of Vault's transit engine. Its key is
// the token's, so that another token decrypts to nothing.
func transitServer(t *testing.T, token string) *httptest.Server {
	keys := map[string][]byte{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") != token {
			w.WriteHeader(403)
			fmt.Fprint(w, `{"errors":["permission denied"]}`)
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/v1/transit/encrypt/") && !strings.HasPrefix(r.URL.Path, "/v1/transit/decrypt/") {
			t.Errorf("the token was sent to %s", r.URL.Path)
		}
		var in struct{ Plaintext, Ciphertext string }
		json.NewDecoder(r.Body).Decode(&in)
		switch r.Method + " " + r.URL.Path {
		case "POST /v1/transit/encrypt/guard":
			b, _ := base64.StdEncoding.DecodeString(in.Plaintext)
			id := fmt.Sprintf("vault:v1:%d", len(keys))
			keys[id] = b
			fmt.Fprintf(w, `{"data":{"ciphertext":%q,"key_version":1}}`, id)
		case "POST /v1/transit/decrypt/guard":
			b, ok := keys[in.Ciphertext]
			if !ok {
				w.WriteHeader(400)
				return
			}
			fmt.Fprintf(w, `{"data":{"plaintext":%q}}`, base64.StdEncoding.EncodeToString(b))
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func ways(t *testing.T) map[string]way {
	id, rec := x25519(t)
	other, otherRec := x25519(t)
	h, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	hybrid := private(t, "hybrid", []byte(h.String()+"\n"))
	sshFile, sshPub := sshKey(t, "")
	lockedFile, lockedPub := sshKey(t, "open, please")
	ask := func(string) (guard.Secret, error) { return secret("open, please"), nil }

	var code string
	recovery := Recovery{
		Show: func(c guard.Secret) error { code = string(c.Reveal()); return nil },
		Ask:  func() (guard.Secret, error) { return secret(" " + strings.ToLower(code) + "\n"), nil },
	}
	var wrongKey [32]byte
	creds := t.TempDir()
	b := make([]byte, 40)
	rand.Read(b)
	os.WriteFile(filepath.Join(creds, "guard.key"), b, 0o400)
	rand.Read(b)
	os.WriteFile(filepath.Join(creds, "other.key"), b, 0o400)

	server := transitServer(t, "token-of-the-test")
	transit := func(token string) Transit {
		return Transit{Addr: server.URL, Token: secret(token), Key: "guard"}
	}
	m := map[string]way{
		"recovery": {recovery, recovery, Recovery{Ask: func() (guard.Secret, error) { return guard.NewSecret(recoveryCode(wrongKey[:])), nil }}, ErrWrongKey, true},
		"age": {
			Age{Recipients: []string{rec, otherRec}}, Age{Identities: []string{id}}, Age{Identities: []string{hybrid}}, ErrNoUnlocker, true},
		"age, the second recipient": {Age{Recipients: []string{rec, otherRec}}, Age{Identities: []string{hybrid, other}}, Age{}, ErrNoUnlocker, true},
		"age, post-quantum":         {Age{Recipients: []string{h.Recipient().String()}}, Age{Identities: []string{hybrid}}, Age{Identities: []string{other}}, ErrNoUnlocker, true},
		"age, ssh":                  {Age{Recipients: []string{sshPub}}, Age{Identities: []string{sshFile}}, Age{Identities: []string{id}}, ErrNoUnlocker, true},
		"age, ssh under a passphrase": {Age{Recipients: []string{lockedPub}}, Age{Identities: []string{lockedFile}, Ask: ask},
			Age{Identities: []string{lockedFile}}, ErrNoUnlocker, true},
		"systemd": {SystemdCredential{Dir: creds}, SystemdCredential{Dir: creds}, SystemdCredential{Dir: creds, ID: "other.key"}, ErrWrongKey, false},
		"transit": {transit("token-of-the-test"), transit("token-of-the-test\n"), transit("another"), ErrNoUnlocker, true},
	}
	if runtime.GOOS == "linux" {
		bin := t.TempDir()
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		script := fmt.Sprintf("#!/bin/sh\nGUARD_AGE_PLUGIN=1 exec %q \"$@\"\n", exe)
		if err := os.WriteFile(filepath.Join(bin, "age-plugin-guardtest"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
		k, _ := age.GenerateX25519Identity()
		told := 0
		m["age, a plugin"] = way{
			Age{Recipients: []string{plugin.EncodeRecipient("guardtest", []byte(k.Recipient().String()))}},
			Age{Identities: []string{private(t, "plugin", []byte(plugin.EncodeIdentity("guardtest", []byte(k.String()))+"\n"))}, Say: func(string) { told++ }},
			Age{Identities: []string{id}}, ErrNoUnlocker, true}
		t.Cleanup(func() {
			if told == 0 {
				t.Error("what the plugin said was not shown")
			}
		})
	}
	return m
}

func TestUnlockers(t *testing.T) {
	for name, w := range ways(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "vault")
			v, err := Create(dir, w.make)
			if err != nil {
				t.Fatal(err)
			}
			set(t, v, "", "db", canary)
			v.Close()
			raw, _ := readFileOf(dir)
			if bytes.Contains(raw, []byte(canary)) {
				t.Error("the value is in the file")
			}
			_, err = Open(dir, w.wrong)
			want(t, err, w.err)
			v = reopen(t, dir, w.open)
			if get(t, v, "", "db", 0) != canary {
				t.Error("another value")
			}
			// A second way in, and this one taken away.
			key := KeyFile{Path: filepath.Join(t.TempDir(), "key"), Create: true}
			if err := v.AddSlot(key); err != nil {
				t.Fatal(err)
			}
			if err := v.RemoveSlot(w.open.Name()); err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, w.open)
			want(t, err, ErrNoUnlocker)
			reopen(t, dir, key)
		})
	}
}

// Every byte of a slot's parameters is bound to the slot: what is changed opens
// nothing, and is not taken for another key.
func TestSlotParametersAreBound(t *testing.T) {
	_, rec := x25519(t)
	id, rec2 := x25519(t)
	dir := filepath.Join(t.TempDir(), "vault")
	v, err := Create(dir, Age{Recipients: []string{rec2}})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	raw, _ := readFileOf(dir)
	params, _ := json.Marshal([]byte(fmt.Sprintf(`{"recipients":[%q]`, rec2)))
	other, _ := json.Marshal([]byte(fmt.Sprintf(`{"recipients":[%q]`, rec)))
	// In the header the parameters are base64: whole groups of three bytes are replaced.
	n := (len(params) - 2) / 4 * 4
	changed := bytes.Replace(raw, params[1:n-3], other[1:n-3], 1)
	if bytes.Equal(changed, raw) {
		t.Fatal("the parameters are not where this test looks")
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), resum(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, Age{Identities: []string{id}})
	want(t, err, ErrWrongKey)
}

func TestRekey(t *testing.T) {
	for name, w := range ways(t) {
		t.Run(name, func(t *testing.T) {
			v, dir, key := opened(t)
			set(t, v, "", "db", canary)
			set(t, v, "acme/prod", "db", canary+"-prod")
			if err := v.AddSlot(w.make); err != nil {
				t.Fatal(err)
			}
			if err := v.AddSlot(Passphrase{Ask: func(bool) (guard.Secret, error) { return secret("a good passphrase"), nil }}); err != nil {
				t.Fatal(err)
			}
			k1, _ := v.Key("audit")
			before, _ := readFileOf(dir)
			beside := reopen(t, dir, key)
			again := func(s SlotInfo) (Again, error) {
				switch {
				case s.Kind == "keyfile":
					return Again{Unlocker: key}, nil
				case s.Kind == w.make.Name() && w.enrol:
					return Again{Unlocker: w.make, Enrol: true}, nil
				case s.Kind == w.make.Name():
					return Again{Unlocker: w.open}, nil
				}
				return Again{}, nil // the passphrase is dropped
			}
			if err := v.Rekey(again); err != nil {
				t.Fatal(err)
			}
			if get(t, v, "", "db", 0) != canary || get(t, v, "acme/prod", "db", 0) != canary+"-prod" {
				t.Error("a value is lost")
			}
			set(t, v, "", "more", canary+"-more")
			_, err := beside.Get(guard.SecretID{Context: "default", Name: "db"})
			want(t, err, ErrRekeyed)
			v.Close()
			for _, u := range []Unlocker{key, w.open} {
				v := reopen(t, dir, u)
				if get(t, v, "", "db", 0) != canary || get(t, v, "", "more", 0) != canary+"-more" {
					t.Error("a value is lost")
				}
				k2, _ := v.Key("audit")
				if !bytes.Equal(k1.Reveal(), k2.Reveal()) {
					t.Error("the keys for other purposes changed")
				}
			}
			_, err = Open(dir, Passphrase{Ask: func(bool) (guard.Secret, error) { return secret("a good passphrase"), nil }})
			want(t, err, ErrNoUnlocker)

			// The old master key opens nothing of the new file, also not of the backup.
			old, err := parse(before)
			if err != nil {
				t.Fatal(err)
			}
			mk, err := old.unlock([]Unlocker{key})
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{fileName, bakName} {
				raw, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				st, err := parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				if st.openIndex(mk) == nil {
					t.Errorf("%s opens with the old master key", name)
				}
			}
		})
	}
}

func TestRekeyRefused(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "db", canary)
	before, _ := readFileOf(dir)
	for name, again := range map[string]func(SlotInfo) (Again, error){
		"every slot dropped": func(SlotInfo) (Again, error) { return Again{}, nil },
		"a wrong key":        func(SlotInfo) (Again, error) { return Again{Unlocker: fixedKey{secret(strings.Repeat("x", 32))}}, nil },
		"another kind":       func(SlotInfo) (Again, error) { return Again{Unlocker: Recovery{}}, nil },
		"a person who gives up": func(SlotInfo) (Again, error) {
			return Again{}, errors.New("interrupted")
		},
		"the disk is full": func(SlotInfo) (Again, error) {
			os.MkdirAll(filepath.Join(dir, tmpName, "x"), 0o700) // nothing can be written in its place
			return Again{Unlocker: key}, nil
		},
	} {
		if v.Rekey(again) == nil {
			t.Errorf("%s: done", name)
		}
		if after, _ := readFileOf(dir); !bytes.Equal(before, after) {
			t.Fatalf("%s: the file changed", name)
		}
		os.RemoveAll(filepath.Join(dir, tmpName))
	}
	if get(t, v, "", "db", 0) != canary {
		t.Error("the open vault no longer works")
	}
	set(t, v, "", "db", canary+"2")
	reopen(t, dir, key)
}

func TestRecoveryCode(t *testing.T) {
	key := make([]byte, 32)
	rand.Read(key)
	code := recoveryCode(key)
	if len(code) != recoveryChars+7 {
		t.Fatalf("%d characters", len(code))
	}
	for _, form := range []string{string(code), strings.ToLower(string(code)), strings.ReplaceAll(string(code), "-", " "),
		strings.NewReplacer("0", "o", "1", "l").Replace(string(code)), string(code) + "\r\n"} {
		got, err := parseRecovery([]byte(form))
		if err != nil || !bytes.Equal(got, key) {
			t.Errorf("not read: %v", err)
		}
	}
	// Any one character changed, any two beside each other swapped, any one left out or doubled.
	for i := range code {
		if code[i] == '-' {
			continue
		}
		for _, c := range []byte(crockford) {
			if c == code[i] {
				continue
			}
			bad := bytes.Clone(code)
			bad[i] = c
			if _, err := parseRecovery(bad); !errors.Is(err, ErrMistyped) {
				t.Fatalf("character %d changed: %v", i, err)
			}
		}
		if _, err := parseRecovery(append(bytes.Clone(code[:i]), code[i+1:]...)); !errors.Is(err, ErrMistyped) {
			t.Fatalf("character %d left out: %v", i, err)
		}
		if _, err := parseRecovery(append(bytes.Clone(code[:i+1]), code[i:]...)); !errors.Is(err, ErrMistyped) {
			t.Fatalf("character %d doubled: %v", i, err)
		}
	}
	for _, s := range []string{"", "-", "U", strings.Repeat("0", 1000), "\xff"} {
		if _, err := parseRecovery([]byte(s)); !errors.Is(err, ErrMistyped) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestTransitRefusals(t *testing.T) {
	server := transitServer(t, "right")
	good := Transit{Addr: server.URL, Token: secret("right"), Key: "guard"}
	k, params, err := good.Enrol("id")
	if err != nil {
		t.Fatal(err)
	}
	got, err := good.Unlock("id", params)
	if err != nil || !bytes.Equal(got.Reveal(), k.Reveal()) {
		t.Fatal(err)
	}
	// The slot's own address is never followed: it may have been changed.
	moved := bytes.Replace(params, []byte(server.URL), []byte("http://127.0.0.1:1"), 1)
	if got, err := good.Unlock("id", moved); err != nil || got.Len() != 32 {
		t.Error("the address in the slot was used:", err)
	}
	for _, change := range [][2]string{{`"key":"guard"`, `"key":"../../sys/seal"`}, {`"key":"guard"`, `"key":"x/../../../sys/seal"`}, {`"mount":"transit"`, `"mount":"../sys/seal?"`}, {`"mount":"transit"`, `"mount":"transit/../sys"`}} {
		p := bytes.Replace(params, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(p, params) {
			t.Fatal("the parameters are not what this test takes them for")
		}
		// As guard unlocks: only where the server is comes from the user.
		if _, err := (Transit{Addr: server.URL, Token: secret("right")}).Unlock("id", p); err == nil {
			t.Errorf("%s: unlocked", change[1])
		}
	}
	bad := func(f func(*Transit)) Transit { g := good; f(&g); return g }
	redirect := httptest.NewServer(http.RedirectHandler(server.URL, http.StatusTemporaryRedirect))
	defer redirect.Close()
	short := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"data":{"plaintext":"YQ=="}}`) }))
	defer short.Close()
	for name, tr := range map[string]Transit{
		"no server":       bad(func(t *Transit) { t.Addr = "" }),
		"not a URL":       bad(func(t *Transit) { t.Addr = "vault.example.com" }),
		"without TLS":     bad(func(t *Transit) { t.Addr = "http://vault.example.com" }),
		"a login in it":   bad(func(t *Transit) { t.Addr = "https://a:b@127.0.0.1" }),
		"no token":        bad(func(t *Transit) { t.Token = guard.Secret{} }),
		"a wrong token":   bad(func(t *Transit) { t.Token = secret("wrong") }),
		"no such key":     bad(func(t *Transit) { t.Key = "other" }),
		"a key as a path": bad(func(t *Transit) { t.Key = "../../sys/seal" }),
		"a mount as one":  bad(func(t *Transit) { t.Mount = "../sys" }),
		"a redirect":      bad(func(t *Transit) { t.Addr = redirect.URL }),
		"another answer":  bad(func(t *Transit) { t.Addr = short.URL }),
	} {
		if _, err := tr.Unlock("id", params); err == nil {
			t.Errorf("%s: unlocked", name)
		} else if strings.Contains(err.Error(), "right") || strings.Contains(err.Error(), "a:b") {
			t.Errorf("%s: the error holds what was given: %v", name, err)
		}
	}
}

func TestAgeFiles(t *testing.T) {
	id, rec := x25519(t)
	_, params, err := Age{Recipients: []string{rec}}.Enrol("")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(id)
	line := strings.Fields(string(b))[len(strings.Fields(string(b)))-1]
	for name, path := range map[string]string{
		"nothing":    private(t, "x", nil),
		"comments":   private(t, "x", []byte("# "+line+"\n")),
		"cut off":    private(t, "x", []byte(line[:len(line)-3]+"\n")),
		"encrypted":  private(t, "x", []byte("age-encryption.org/v1\n-> scrypt x\n")),
		"a bad key":  private(t, "x", []byte("-----BEGIN OPENSSH PRIVATE KEY-----\n"+line+"\n-----END OPENSSH PRIVATE KEY-----\n")),
		"no file":    filepath.Join(t.TempDir(), "x"),
		"a folder":   t.TempDir(),
		"an unknown": private(t, "x", []byte("AGE-PLUGIN-NOSUCHPLUGIN-1QQQ\n")),
	} {
		_, err := Age{Identities: []string{path}}.Unlock("", params)
		if err == nil {
			t.Errorf("%s: unlocked", name)
		} else if strings.Contains(err.Error(), line[16:30]) {
			t.Errorf("%s: the error holds the identity", name)
		}
	}
	if hasModes {
		os.Chmod(id, 0o640)
		_, err := Age{Identities: []string{id}}.Unlock("", params)
		want(t, err, ErrUnsafe)
	}
	for _, r := range []string{"", "age1", "ssh-dss AAAA", "age1" + strings.Repeat("q", 58), line} {
		if _, _, err := (Age{Recipients: []string{r}}).Enrol(""); err == nil {
			t.Errorf("recipient %q was taken", r)
		}
	}
}

func TestBackupAndRestore(t *testing.T) {
	v, dir, key := opened(t)
	set(t, v, "", "db", canary)
	set(t, v, "acme/prod", "db", canary+"-prod")
	set(t, v, "acme/prod", "db", canary+"-prod2")
	path := filepath.Join(t.TempDir(), "copy")
	if err := v.Backup(path); err != nil {
		t.Fatal(err)
	}
	want(t, v.Backup(path), fs.ErrExist)
	if fi, _ := os.Stat(path); hasModes && fi.Mode().Perm() != 0o600 {
		t.Error("mode", fi.Mode())
	}
	c, err := Verify(path, key)
	if err != nil || c.Contexts != 2 || c.Values != 3 || c.Vault != v.ID() {
		t.Fatalf("%+v %v", c, err)
	}
	_, err = Verify(path, KeyFile{Path: private(t, "k", bytes.Repeat([]byte("ab"), 20))})
	want(t, err, ErrWrongKey)

	set(t, v, "", "db", canary+"-later")
	gen := v.Generation()
	if c, err = Restore(dir, path, false, key); err != nil || c.Generation <= gen {
		t.Fatalf("%+v %v", c, err)
	}
	// An open vault takes it for a newer one, not for a rollback.
	if get(t, v, "", "db", 0) != canary {
		t.Error("not restored")
	}
	// What was there is the backup beside it.
	raw, _ := os.ReadFile(filepath.Join(dir, bakName))
	if st, err := parse(raw); err != nil || st.gen != gen {
		t.Error("what was there is gone")
	}

	// Into an empty folder, over a damaged file, and not over another vault.
	fresh := filepath.Join(t.TempDir(), "vault")
	if _, err := Restore(fresh, path, false, key); err != nil {
		t.Fatal(err)
	}
	if get(t, reopen(t, fresh, key), "acme/prod", "db", 0) != canary+"-prod2" {
		t.Error("not restored")
	}
	os.WriteFile(filepath.Join(fresh, fileName), []byte("damaged"), 0o600)
	if _, err := Restore(fresh, path, false, key); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(fresh, fileName+".damaged-1")); string(b) != "damaged" {
		t.Error("the damaged file was not kept")
	}
	_, other, _ := opened(t)
	before, _ := readFileOf(other)
	_, err = Restore(other, path, false, key)
	want(t, err, ErrExists)
	if after, _ := readFileOf(other); !bytes.Equal(before, after) {
		t.Error("another vault was written over")
	}
	if _, err := Restore(other, path, true, key); err != nil {
		t.Fatal(err)
	}

	// A backup with any byte changed restores nothing.
	good, _ := os.ReadFile(path)
	before, _ = readFileOf(dir)
	for i := 0; i < len(good); i += 1 + len(good)/97 {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		for _, b := range [][]byte{bad, resum(bytes.Clone(bad))} {
			if bytes.Equal(b, good) {
				continue // the checksum itself was changed, and made right again
			}
			p := private(t, "bad", b)
			if _, err := Restore(dir, p, true, key); err == nil {
				t.Fatalf("byte %d changed, and it was restored", i)
			}
		}
	}
	if after, _ := readFileOf(dir); !bytes.Equal(before, after) {
		t.Error("a refused restore changed the vault")
	}
}
