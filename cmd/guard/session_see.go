package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"guard"
	brokerhttp "guard/broker/http"
	"guard/supervisor/sandbox"
	"guard/vault"
)

// caFile is where a session finds the roots to trust, in tiers with their own
// file tree.
const caFile = "/run/guard/ca.pem"

// openFiles finds what the session may read that holds known values, and makes
// the copies it is shown instead.
func (s *session) openFiles() error {
	s.conceal = &conceal{matcher: s.matcher, placeholders: map[string][]string{}, budget: concealFiles}
	values, err := s.vault.Values(s.info.Context)
	if err != nil {
		return err
	}
	for _, v := range values {
		if v.Class == guard.Placeholder {
			s.conceal.placeholders[v.ID.Name] = append(s.conceal.placeholders[v.ID.Name], string(v.Secret.Reveal()))
		}
		v.Secret.Wipe()
	}
	shared, err := s.shared()
	if err != nil {
		return err
	}
	always := append(sshHidden(s.home), s.app.home(), s.app.configDir(),
		// Another vault of this user's, where GUARD_HOME leads elsewhere now.
		vault.GuardHome(func(k string) string {
			if k == "GUARD_HOME" {
				return ""
			}
			return s.app.getenv(k)
		}))
	for _, f := range s.app.unlockFiles(s.flags.events) {
		if f == "" {
			continue
		}
		p, err := filepath.Abs(f)
		if err != nil {
			return err
		}
		if p, err = filepath.EvalSymlinks(p); err == nil {
			always = append(always, p)
		}
	}
	all, hidden, err := s.conceal.home(s.home, shared, always)
	if err != nil {
		return err
	}
	for _, p := range shared {
		more, err := s.conceal.tree(p, always)
		if err != nil {
			return err
		}
		all.files = append(all.files, more.files...)
		all.sockets = append(all.sockets, more.sockets...)
	}
	s.hidden = hidden
	s.sockets = all.sockets
	for _, f := range all.files {
		if slices.Contains(hidden, f.Path) || slices.ContainsFunc(s.files, func(g sandbox.File) bool { return g.Path == f.Path }) {
			continue
		}
		s.files = append(s.files, f)
		if filepath.Base(f.Path) == "config" && filepath.Base(filepath.Dir(f.Path)) == ".git" {
			s.app.say("%s holds a known value, so it is shown as a copy and git cannot change it in this session", f.Path)
		}
	}
	if n := s.conceal.Skipped + s.conceal.Unread; n > 0 && s.flags.verbose {
		s.app.say("%d files were not looked into for credentials (over %d MiB, past the first %d, or unreadable): the scanner still watches what leaves", n, concealFileMax>>20, concealFiles)
	}

	if s.ca, err = brokerhttp.NewCA(); err != nil {
		return err
	}
	s.bundle = append(append([]byte{}, systemRoots()...), s.ca.CAPEM()...)
	for _, f := range s.flags.ca {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("read --ca: %w", err)
		}
		s.bundle = append(append(s.bundle, '\n'), b...)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	s.token = hex.EncodeToString(b[:])
	return nil
}

// shared are the folders that the agent may write: the working folder first,
// then --share, then the state folders of known agents.
func (s *session) shared() ([]string, error) {
	out := []string{s.dir}
	for _, p := range s.flags.share {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return nil, fmt.Errorf("--share: %w", err)
		}
		if err := ordinary(abs); err != nil {
			return nil, usageError{fmt.Errorf("--share: %w", err)}
		}
		if within(s.app.home(), abs) || within(abs, s.app.home()) {
			return nil, usagef("--share %s: guard's own folder cannot be shared", p)
		}
		out = append(out, abs)
	}
	for _, name := range []string{".claude", ".claude.json", ".codex", ".aider", ".gemini", ".config/opencode", ".local/share/opencode"} {
		p := filepath.Join(s.home, name)
		if _, err := os.Lstat(p); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// ordinary refuses folders that are the system's, not a person's: a session has
// its own of these, or sharing them would share the whole machine.
func ordinary(dir string) error {
	if dir == "/" {
		return errors.New("/ is the whole machine: choose a project's folder")
	}
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		if within(dir, d) {
			return fmt.Errorf("%s is a part of the kernel's %s: choose a project's folder", dir, d)
		}
	}
	if dir == "/run" || dir == "/tmp" {
		return fmt.Errorf("%s is the session's own: choose a folder in it", dir)
	}
	return nil
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}

// systemRoots are the roots that programs on this machine trust.
func systemRoots() []byte {
	for _, p := range rootFiles {
		if b, err := os.ReadFile(p); err == nil {
			return append(b, '\n')
		}
	}
	return nil
}

// rootFiles is where systems keep them, as one file. In a session they hold the
// session's CA too, for programs that no variable reaches.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

// config is the sandbox of a boundary; env depends on how the agent reaches the
// broker there.
func (s *session) config(boundary string, proxy string) (sandbox.Config, error) {
	shared, err := s.shared()
	if err != nil {
		return sandbox.Config{}, err
	}
	env := newEnvironment(s.conceal)
	if _, err := s.app.readStoreFile(); err == nil {
		env.unset("VAULT_TOKEN") // it may open the store, which guard does for the session
	}
	caPath := caFile
	if boundary != "namespace" {
		// Without a file tree of its own the session reads the bundle from the host.
		f, err := os.CreateTemp("", "guard-ca-*.pem")
		if err != nil {
			return sandbox.Config{}, err
		}
		s.closers = append(s.closers, func() { os.Remove(f.Name()) })
		if _, err := f.Write(s.bundle); err != nil {
			return sandbox.Config{}, err
		}
		if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
			return sandbox.Config{}, err
		}
		caPath = f.Name()
		if boundary != "none" && len(javaStores(s.app.getenv("JAVA_HOME"))) > 0 {
			store, err := os.CreateTemp("", "guard-ca-*.jks")
			if err != nil {
				return sandbox.Config{}, err
			}
			s.closers = append(s.closers, func() { os.Remove(store.Name()) })
			if _, err := store.Write(javaStore(s.bundle)); err != nil {
				return sandbox.Config{}, err
			}
			if err := errors.Join(store.Chmod(0o644), store.Close()); err != nil {
				return sandbox.Config{}, err
			}
			env.set("JAVA_TOOL_OPTIONS", strings.TrimSpace(env.get("JAVA_TOOL_OPTIONS")+" "+javaOptions(store.Name())))
		}
	}
	if boundary == "none" {
		caPath, proxy = "", ""
	}
	env.network(proxy, caPath)
	for _, c := range s.credentials() {
		if s.shows(c.Name) && !c.Decoy {
			env.credential(c)
		}
	}
	// A decoy is there to be found, and never in the way: not in the place of anything
	// that the agent would use by right, and not where git takes it without being asked.
	for _, c := range s.credentials() {
		if c.Decoy && c.Env != "" && env.get(c.Env) == "" {
			env.set(c.Env, c.Placeholder)
		}
	}
	keyFiles, err := s.showClouds(env, boundary)
	if err != nil {
		return sandbox.Config{}, err
	}
	env.set("GUARD_SESSION", s.info.ID)
	s.showAgent(env, boundary)
	for _, kv := range s.flags.env {
		k, v, _ := strings.Cut(kv, "=")
		if b := s.conceal.bytes([]byte(v)); b != nil {
			v = string(b)
		}
		env.set(k, v)
	}
	argv := s.conceal.env(s.argv)
	c := sandbox.Config{
		Argv: argv, Env: env.vars, Dir: s.dir, Home: s.home, Writable: shared, Hidden: s.hidden, Files: slices.Clone(s.files), Sockets: s.sockets,
		HostPorts: s.flags.hostPorts, Boundary: boundary,
	}
	c.Files = append(c.Files, keyFiles...)
	if boundary == "namespace" {
		c.Files = append(c.Files, sandbox.File{Path: caFile, Content: s.bundle, Mode: 0o444})
		for _, p := range rootFiles {
			if real, err := filepath.EvalSymlinks(p); err == nil && real == p {
				c.Files = append(c.Files, sandbox.File{Path: p, Content: s.bundle, Mode: 0o444})
			}
		}
		if err := s.addSSH(&c, shared); err != nil {
			return c, err
		}
		c.Files = append(c.Files, javaFiles(s.bundle, s.app.getenv("JAVA_HOME"))...)
		c.HomeUpper = filepath.Join(s.app.home(), "homes", homeName(s.info.Context))
		if err := os.MkdirAll(c.HomeUpper, 0o700); err != nil {
			return c, err
		}
		// Programs inside call guard (guard exec), wherever it is installed.
		if own, err := filepath.EvalSymlinks(s.own()); err == nil {
			c.Writable, c.ReadOnly = append(c.Writable, own), append(c.ReadOnly, own)
			env.set("PATH", env.get("PATH")+":"+filepath.Dir(own)) // where PATH has a link to it in a folder that is not seen
			c.Env = env.vars
		}
	}
	// guard's own program, and what narrows the session, are not the agent's to
	// change, also where they lie in a folder that it may write.
	for _, p := range append([]string{s.own(), findRepoFile(s.dir, s.home)}, s.flags.policyFiles...) {
		if p == "" {
			continue
		}
		if real, err := filepath.EvalSymlinks(p); err == nil && slices.ContainsFunc(shared, func(d string) bool { return within(real, d) }) {
			c.ReadOnly = append(c.ReadOnly, real)
		}
	}
	return c, nil
}

func (s *session) own() string {
	p, err := os.Executable()
	if err != nil {
		return ""
	}
	return p
}
