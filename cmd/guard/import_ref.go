package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// refWait bounds how long a program may take to give out a value; a person may have
// to approve it.
const refWait = 2 * time.Minute

// fromRef fetches the value that ref names, once. Programs are run here, by the
// user's own command, never in a session; what they say on standard error is not
// shown, since it may be the value.
func (a *app) fromRef(ref string) ([]byte, error) {
	if a.getenv("GUARD_SESSION") != "" {
		return nil, errors.New("--from-ref is for the user, not for a session")
	}
	scheme, rest, ok := strings.Cut(ref, "://")
	if !ok || rest == "" {
		return nil, usagef("--from-ref: want env://VAR, file:///PATH[#KEY], keyring://SERVICE/USER, cmd:///PATH [ARG...], op://... or bw://ITEM[/FIELD]")
	}
	var b []byte
	var err error
	switch scheme {
	case "env":
		if !shellNameIs(rest) {
			return nil, usagef("--from-ref env://: want a variable's name")
		}
		if b = []byte(a.getenv(rest)); len(b) == 0 {
			return nil, fmt.Errorf("the variable %s is not set", rest)
		}
	case "file":
		b, err = fileRef(rest)
	case "keyring":
		service, user, ok := strings.Cut(rest, "/")
		if !ok || service == "" || user == "" {
			return nil, usagef("--from-ref keyring://: want keyring://SERVICE/USER")
		}
		if runtime.GOOS == "darwin" {
			b, err = refProgram("/usr/bin/security", "find-generic-password", "-s", service, "-a", user, "-w")
		} else {
			b, err = refInstalled("secret-tool", "lookup", "service", service, "username", user)
		}
	case "cmd":
		args := strings.Fields(rest)
		if len(args) == 0 || !filepath.IsAbs(args[0]) {
			return nil, usagef("--from-ref cmd://: want an absolute path, as in cmd:///usr/local/bin/token, and its arguments")
		}
		if err := ownProgram(args[0]); err != nil {
			return nil, fmt.Errorf("--from-ref cmd://: %w", err)
		}
		b, err = refProgram(args[0], args[1:]...)
	case "op":
		b, err = refInstalled("op", "read", "--no-newline", ref)
	case "bw":
		item, field, _ := strings.Cut(rest, "/")
		if field == "" {
			field = "password"
		}
		if strings.HasPrefix(item, "-") || field != "password" && field != "username" && field != "totp" && field != "notes" {
			return nil, usagef("--from-ref bw://: want bw://ITEM or bw://ITEM/FIELD, FIELD one of password, username, totp, notes")
		}
		b, err = refInstalled("bw", "get", field, item)
	default:
		return nil, usagef("--from-ref: want env://, file://, keyring://, cmd://, op:// or bw://")
	}
	if err != nil {
		return nil, fmt.Errorf("--from-ref %s://: %w", scheme, err)
	}
	if b = stripNewline(b); len(b) == 0 {
		return nil, fmt.Errorf("--from-ref %s://: there is no value", scheme)
	}
	a.say("the value was fetched once, and is stored: what %s:// leads to is not asked again", scheme)
	return b, nil
}

func shellNameIs(s string) bool { return shellName.FindString(s) == s }

// fileRef is a file's content or, of a JSON file or one of variables, one value.
func fileRef(rest string) ([]byte, error) {
	path, key, keyed := strings.Cut(rest, "#")
	if !filepath.IsAbs(path) {
		return nil, errors.New("want an absolute path, as in file:///home/me/token")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, plainError(err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	b, more, err := drain(f, importMax)
	switch {
	case err != nil:
		return nil, plainError(err)
	case more:
		return nil, fmt.Errorf("larger than %d KiB", importMax>>10)
	case !keyed:
		return b, nil
	}
	defer clear(b)
	if json.Valid(b) {
		for _, l := range jsonLeaves(b) {
			if strings.Join(l.path, ".") == key {
				return []byte(l.value), nil
			}
		}
		return nil, errors.New("the JSON file has no text at that key (write a.b for a member of a member)")
	}
	for _, c := range parseDotenv(b) {
		if c.env == key && c.skip == "" && !c.ref {
			return c.value, nil
		}
	}
	return nil, errors.New("the file has no value under that key")
}

// ownProgram refuses a program that somebody else could put another in the place of.
func ownProgram(path string) error {
	if filepath.Clean(path) != path {
		return errors.New("want the program's path without . and ..")
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return plainError(err)
	}
	if fi, err := os.Stat(real); err != nil || !fi.Mode().IsRegular() || runtime.GOOS != "windows" && fi.Mode().Perm()&0o111 == 0 {
		return errors.New("it is no program")
	}
	for p := real; ; p = filepath.Dir(p) {
		fi, err := os.Stat(p)
		if err != nil {
			return plainError(err)
		}
		if foreignOwner(fi) {
			return errors.New("it, or a folder above it, is another user's")
		}
		sticky := fi.IsDir() && fi.Mode()&os.ModeSticky != 0
		if runtime.GOOS != "windows" && fi.Mode().Perm()&0o022 != 0 && !sticky {
			return fmt.Errorf("others may change it, or a folder above it (mode %v)", fi.Mode().Perm())
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

func refInstalled(name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%s is not installed", name)
	}
	return refProgram(path, args...)
}

// refProgram runs a program and returns what it prints.
func refProgram(path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), refWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var out bytes.Buffer
	cmd.Stdout = &limited{w: &out, left: importMax}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		clear(out.Bytes())
		var exit *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s gave no value within %v", filepath.Base(path), refWait)
		case errors.As(err, &exit):
			return nil, fmt.Errorf("%s ended with status %d: run it by itself to see why", filepath.Base(path), exit.ExitCode())
		}
		return nil, fmt.Errorf("run %s: %w", filepath.Base(path), plainError(err))
	}
	return out.Bytes(), nil
}

// limited takes so many bytes and no more.
type limited struct {
	w    *bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("more than a value")
	}
	return l.w.Write(p)
}
