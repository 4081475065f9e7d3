package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/vault"
)

const defaultContext = "default"

// home is $GUARD_HOME: vault, audit, state.
func (a *app) home() string { return vault.GuardHome(a.getenv) }

func (a *app) auditDir() string    { return filepath.Join(a.home(), "audit") }
func (a *app) rotateDir() string   { return filepath.Join(a.home(), "rotate") }
func (a *app) incidentDir() string { return filepath.Join(a.home(), "incidents") }
func (a *app) originalDir() string { return filepath.Join(a.home(), "originals") }

// configDir is where the user's own settings are.
func (a *app) configDir() string {
	if d := a.getenv("XDG_CONFIG_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "guard")
	}
	return filepath.Join(a.userHome(), ".config", "guard")
}

// userHome is the user's home folder, canonical.
func (a *app) userHome() string {
	h := a.getenv("HOME")
	if runtime.GOOS == "windows" {
		h = a.getenv("USERPROFILE")
	}
	if c, err := filepath.EvalSymlinks(h); err == nil {
		return c
	}
	return h
}

type unlockFlags struct {
	passphraseFile, keyfile string
	age                     []string
	recovery                bool
	// of a sealed context
	contextPassphrase, contextKeyfile string
	contextAge                        []string
}

// explicit says that the user named how to open the vault.
func (u unlockFlags) explicit(a *app) bool {
	return u.recovery || u.passphraseFile != "" || u.keyfile != "" || len(u.age) > 0 ||
		a.getenv("GUARD_PASSPHRASE_FILE") != "" || a.getenv("GUARD_KEYFILE") != "" || a.getenv("GUARD_AGE_IDENTITY") != ""
}

func (u unlockFlags) newPassphraseFile(a *app) string {
	if u.passphraseFile != "" {
		return u.passphraseFile
	}
	return a.getenv("GUARD_PASSPHRASE_FILE")
}

// unlockers are the ways to open the vault that this invocation offers, the
// ones that ask nobody first.
func (a *app) unlockers(create bool) ([]vault.Unlocker, error) {
	if create || a.unlock.explicit(a) {
		return a.offers(nil)
	}
	slots, err := vault.Slots(a.home())
	if err != nil {
		return nil, err
	}
	return a.offers(slots)
}

// offers are what the user named or else, of the slots that there are, those that
// ask nobody.
func (a *app) offers(slots []string) (us []vault.Unlocker, err error) {
	pf, kf := a.unlock.passphraseFile, a.unlock.keyfile
	if pf == "" && kf == "" && len(a.unlock.age) == 0 && !a.unlock.recovery {
		pf, kf = a.getenv("GUARD_PASSPHRASE_FILE"), a.getenv("GUARD_KEYFILE")
	}
	if kf != "" {
		us = append(us, vault.KeyFile{Path: kf, Create: slots == nil})
	}
	if pf != "" {
		us = append(us, passphraseFile(pf))
	}
	if age := a.age(); len(age.Identities) > 0 {
		us = append(us, age)
	}
	if a.unlock.recovery {
		us = append(us, a.recovery())
	}
	if len(us) > 0 {
		return us, nil
	}
	has := func(kind string) bool {
		return slices.ContainsFunc(slots, func(s string) bool { return s == kind || strings.HasPrefix(s, kind+"-") })
	}
	if has("systemd") && a.getenv("CREDENTIALS_DIRECTORY") != "" {
		us = append(us, vault.SystemdCredential{Dir: a.getenv("CREDENTIALS_DIRECTORY")})
	}
	if has("keyring") {
		us = append(us, vault.Keyring{})
	}
	if has("transit") && a.getenv("VAULT_ADDR") != "" {
		if t, err := a.transit(); err == nil {
			us = append(us, t)
		} else {
			a.say("%v", err)
		}
	}
	return us, nil
}

// unlockFiles are files that open the vault, or help to: no session sees them. more
// are further ones.
func (a *app) unlockFiles(more ...string) []string {
	out := append([]string{a.unlock.keyfile, a.unlock.passphraseFile, a.getenv("GUARD_KEYFILE"), a.getenv("GUARD_PASSPHRASE_FILE")}, more...)
	out = append(out, a.unlock.age...)
	out = append(out, filepath.SplitList(a.getenv("GUARD_AGE_IDENTITY"))...)
	out = append(out, a.contextFiles()...)
	out = append(out, a.storeFiles()...)
	slots, err := vault.Slots(a.home())
	if err == nil && slices.ContainsFunc(slots, func(s string) bool { return strings.HasPrefix(s, "transit") }) {
		out = append(out, a.transitToken())
	}
	return out
}

func passphraseFile(path string) vault.Passphrase {
	return vault.Passphrase{Ask: func(bool) (guard.Secret, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return guard.Secret{}, err
		}
		if b = oneLine(b); len(b) == 0 {
			return guard.Secret{}, fmt.Errorf("the passphrase file %s is empty", path)
		}
		return guard.NewSecret(b), nil
	}}
}

// askPassphrase asks on the terminal, twice for a new one.
var askPassphrase = vault.Passphrase{Ask: func(confirm bool) (guard.Secret, error) {
	prompts := []string{"guard: vault passphrase: "}
	if confirm {
		prompts = []string{"guard: new vault passphrase: ", "guard: once more: "}
	}
	lines, err := askHidden(prompts...)
	if err != nil {
		return guard.Secret{}, err
	}
	if confirm {
		defer clear(lines[1])
		if !bytes.Equal(lines[0], lines[1]) {
			clear(lines[0])
			return guard.Secret{}, errors.New("the two passphrases differ: nothing was made")
		}
	}
	return guard.NewSecret(lines[0]), nil
}}

// openVault opens the vault, and asks for the passphrase on the terminal where
// nothing else opened it.
func (a *app) openVault() (*vault.Vault, error) {
	if err := a.checkLock(); err != nil {
		return nil, err
	}
	us, err := a.unlockers(false)
	if err != nil {
		return nil, err
	}
	if u := a.unlock; u.keyfile == "" && u.passphraseFile == "" && len(u.age) == 0 && !u.recovery {
		slots, err := vault.Slots(a.home())
		if err != nil {
			return nil, err
		}
		if slices.Contains(slots, "passphrase") {
			us = append(us, askPassphrase)
		}
	}
	v, err := vault.Open(a.home(), us...)
	if err != nil {
		return nil, err
	}
	if err := a.checkGeneration(v); err != nil {
		v.Close()
		return nil, err
	}
	a.keepUsed(time.Now())
	return v, nil
}

// openSessionVault is openVault for guard run, which guards what it finds also where
// there is no vault yet.
func (a *app) openSessionVault() (*vault.Vault, error) {
	v, err := a.openVault()
	u := a.unlock
	named := u.recovery || u.passphraseFile != "" || u.keyfile != "" || len(u.age) > 0
	if !errors.Is(err, vault.ErrNoVault) || named || a.getenv("GUARD_SESSION") != "" {
		return v, err
	}
	v, merr := vault.Memory(a.home())
	if errors.Is(merr, vault.ErrExists) {
		return nil, err // the vault is gone, and its backup is there
	}
	return v, merr
}

// checkGeneration refuses a vault that was put back to an earlier state: it may
// hold values that were replaced, and slots that were taken away.
func (a *app) checkGeneration(v *vault.Vault) error {
	seen, err := a.seen(v)
	if err != nil {
		a.say("the keychain does not say how far the vault is: %v", err)
	}
	if now := v.Generation(); now < seen && !a.acceptOld {
		return fmt.Errorf("%w: generation %d, and %d was seen: %w", errOldVault, now, seen, vault.ErrRolledBack)
	}
	return nil
}

// head is how far the log had come: kept sealed outside the log's folder, so that
// a log that was put back to an earlier state is noticed.
type head struct {
	Size uint64 `json:"size"`
	Root string `json:"root"`
	// Vault is the vault's generation then: an older file that was put back is noticed.
	Vault uint64 `json:"vault,omitempty"`
}

func (a *app) headPath() string { return filepath.Join(a.home(), "audit.head") }

// keepHead remembers how far the log is.
func (a *app) keepHead(v *vault.Vault, log *audit.Log) error {
	var h head
	h.Size, h.Root = log.Head()
	h.Vault = v.Generation()
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	box, err := v.Seal("audit-head", b)
	if err != nil {
		return err
	}
	if err := writeFile(a.headPath(), box); err != nil {
		return err
	}
	return a.keepGeneration(v, h.Vault)
}

// keepGeneration has the keychain remember how far the vault is, where it opens it.
func (a *app) keepGeneration(v *vault.Vault, generation uint64) error {
	if !a.hasKeychain() {
		return nil
	}
	if err := (vault.Keyring{}).Keep(v.ID(), generation); !errors.Is(err, vault.ErrNoKeyring) {
		return err
	}
	return nil // another slot opened it, where no keychain answers
}

func (a *app) hasKeychain() bool {
	slots, err := vault.Slots(a.home())
	return err == nil && slices.Contains(slots, "keyring")
}

// seen is the highest generation of the vault that anything remembers: the log's
// head, which lies beside it, and the keychain, which does not.
func (a *app) seen(v *vault.Vault) (generation uint64, err error) {
	if h, err := a.readHead(v); err == nil { // else guard audit verify has the words for it
		generation = h.Vault
	}
	if a.hasKeychain() {
		kept, err := vault.Keyring{}.Kept(v.ID())
		if err != nil && !errors.Is(err, vault.ErrNoKeyring) {
			return generation, err
		}
		generation = max(generation, kept)
	}
	return generation, nil
}

// errOldVault is the error of a vault file that was put back to an earlier state.
var errOldVault = errors.New("the vault file is older than the one that was here")

// readHead returns what keepHead remembered; zero if nothing was.
func (a *app) readHead(v *vault.Vault) (h head, err error) {
	box, err := os.ReadFile(a.headPath())
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return h, err
	}
	b, err := v.Unseal("audit-head", box)
	if err != nil {
		return h, fmt.Errorf("%s was changed or is not of this vault: %w", a.headPath(), err)
	}
	return h, json.Unmarshal(b, &h)
}

// openAudit opens the log with the key that the vault keeps for it.
func (a *app) openAudit(v *vault.Vault, tee *os.File) (*audit.Log, error) {
	key, err := v.Key("audit")
	if err != nil {
		return nil, err
	}
	if tee == nil {
		return audit.Open(a.auditDir(), key, nil)
	}
	return audit.Open(a.auditDir(), key, tee)
}

// hint adds what to do next to an error, by its kind. Only main knows commands.
func hint(err error) string {
	switch {
	case errors.Is(err, vault.ErrNoVault) && os.Getenv("GUARD_SESSION") != "":
		return "this is inside of a session, where there is no vault on purpose: run guard outside of it"
	case errors.Is(err, vault.ErrNoVault):
		return "make a vault with: guard init"
	case errors.Is(err, vault.ErrSealed):
		return "a sealed context is named with --context, and opens with --context-passphrase-file, --context-keyfile, --context-age-identity or what you type"
	case errors.Is(err, errOldVault):
		return "put the newer file back, or, if you restored this one yourself, run: guard vault accept"
	case errors.Is(err, vault.ErrWrongKey):
		return "give --passphrase-file, --keyfile, or run where the keychain answers"
	case errors.Is(err, vault.ErrNotFound):
		return "guard secret ls lists what there is, by context"
	case errors.Is(err, audit.ErrTampered):
		return "the log no longer matches its signatures: keep a copy of the folder, and treat what it says after that point as unproven"
	case errors.Is(err, errNoTerminal):
		return "without a terminal use --stdin, --from-file or --passphrase-file"
	}
	return ""
}

// contexts says which folders belong to which context. Only the user writes it,
// with `guard context add`; it lies where a session cannot see it.
type contexts struct {
	Folders map[string]string `json:"folders"` // canonical folder -> context
}

func (a *app) contextsPath() string { return filepath.Join(a.home(), "contexts.json") }

func (a *app) loadContexts() (contexts, error) {
	c := contexts{Folders: map[string]string{}}
	b, err := os.ReadFile(a.contextsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%s is not valid: %w", a.contextsPath(), err)
	}
	return c, nil
}

// contextOf is the context of the nearest assigned folder at or above dir.
func (c contexts) contextOf(dir string) string {
	for {
		if name, ok := c.Folders[dir]; ok {
			return name
		}
		up := filepath.Dir(dir)
		if up == dir {
			return defaultContext
		}
		dir = up
	}
}

// workingFolder is the current folder, canonical.
func workingFolder() (string, error) {
	d, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the current folder: %w", err)
	}
	return filepath.EvalSymlinks(d)
}

// resolveContext is the context of this invocation: the flag's, else the current
// folder's, both for what is interactive unless the flag says @daemon.
func (a *app) resolveContext(flag string) (string, error) {
	if flag != "" {
		return flag, checkContext(flag)
	}
	dir, err := workingFolder()
	if err != nil {
		return "", err
	}
	cs, err := a.loadContexts()
	if err != nil {
		return "", err
	}
	return cs.contextOf(dir), nil
}

func checkContext(name string) error {
	name = strings.TrimSuffix(name, daemonContext)
	if name == "" || len(name) > 128 || strings.Count(name, "/") > 1 || strings.HasPrefix(name, "/") || strings.HasSuffix(name, "/") {
		return usagef("context %q: want PROJECT or PROJECT/ENV", name)
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./", r)) {
			return usagef("context %q: only letters, digits and - _ . are allowed, with one / before the environment", name)
		}
	}
	return nil
}

// writeFile replaces path durably and privately.
func writeFile(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err == nil && runtime.GOOS != "windows" { // where a folder cannot be synced
		var dir *os.File
		if dir, err = os.Open(filepath.Dir(path)); err == nil {
			err = errors.Join(dir.Sync(), dir.Close())
		}
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
