// Package exec rotates a credential with a program of the user's.
//
// # The program
//
// It is run once a step, with one JSON object on standard input:
//
//	step        "mint", "verify", "revoke" or "verify-dead"
//	credential  its name
//	context, user, hosts, version   what guard knows of it
//	intent      an id that stays the same when a step is taken again
//	current     the old value
//	candidate   at mint a new random value that may be used; afterwards the new value
//	emergency   true: the old value got out
//
// and answers with one JSON object on standard output:
//
//	ok             whether the step succeeded
//	value          at mint: the new value; left out, it is candidate
//	error          a sentence
//	retry_after_s  seconds before it makes sense to take the step again
//
// mint makes the new value real, or is not ok if it made nothing; taken again with the same intent, it ends in
// one new value. verify is ok if candidate is accepted, and not ok if the issuer
// refuses it; revoke ends current and its sessions; verify-dead is ok if
// current was tried and refused. If nothing can be said, the program exits with
// a status other than 0: the step failed.
//
// Values travel on these two pipes only. The environment is PATH, HOME and
// LANG, the folder is /. What the program says (error, standard error) is shown
// without any line that holds six or more characters of a value, in plain
// letters, hex, base64 or URL encoding.
//
// # Pinned
//
// The path is absolute; the program and every folder above it belong to root or
// to the user and cannot be written by anyone else; its SHA-256 is recorded
// when the credential is set (Pin) and compared before each run. Between the
// comparison and the start, the user's own uid could change it: guard's sandbox
// keeps the agent from writing there.
package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"strings"
	"time"
	"unicode/utf8"

	"guard"
	"guard/rotate"
)

// Provider is a rotate.Provider, Chooser and Checker. Its zero value works.
type Provider struct {
	// Env is what the program gets as its environment; nil: PATH, HOME and LANG.
	Env []string
}

const (
	maxAnswer = 64 << 10
	maxNoise  = 16 << 10
)

type request struct {
	Step       string   `json:"step"`
	Credential string   `json:"credential"`
	Context    string   `json:"context"`
	Version    int      `json:"version"`
	User       string   `json:"user,omitempty"`
	Hosts      []string `json:"hosts,omitempty"`
	Intent     string   `json:"intent"`
	Current    string   `json:"current"`
	Candidate  string   `json:"candidate"`
	Emergency  bool     `json:"emergency"`
}

type answer struct {
	OK         bool    `json:"ok"`
	Value      string  `json:"value"`
	Error      string  `json:"error"`
	RetryAfter float64 `json:"retry_after_s"`
}

// About describes it.
func (Provider) About() rotate.About {
	return rotate.About{
		Name: "exec",
		Options: []rotate.Option{
			{Key: "cmd", About: "absolute path of the program to run once a step", Must: true},
			{Key: "sha256", About: "hash of that program, recorded when the credential was set"},
			{Key: "timeout", About: "of one step; default 30s"},
		},
		Privileges: "what the program needs",
		Sessions:   "the program's revoke step ends them",
		Limits:     "the program and its folders must not be writable by anyone else; values must be text",
	}
}

// Pin adds the program's hash to a spec that is set.
func (Provider) Pin(options map[string]string) error { return Pin(options) }

// Choose makes a value of 40 letters and digits (238 bits), which the program may use.
func (p Provider) Choose(rotate.Job) (guard.Secret, error) { return rotate.NewPassword(40), nil }

// Check says whether the program may be run. It does not run it.
func (p Provider) Check(_ context.Context, j rotate.Job) error {
	return check(j.Options)
}

// Mint runs the program's mint step.
func (p Provider) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	a, err := p.run(ctx, j, j.Candidate)
	if err != nil {
		return guard.Secret{}, err
	}
	if !a.OK {
		return guard.Secret{}, rotate.NotMade(a.failure(j.Step))
	}
	return guard.NewSecret([]byte(a.Value)), nil
}

// Verify runs verify, or verify-dead where j.Step is that.
func (p Provider) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	if j.Step == rotate.StepDead {
		a, err := p.run(ctx, j, j.Candidate)
		switch {
		case err != nil:
			return err
		case a.OK:
			return fmt.Errorf("verify-dead is ok: %w", rotate.ErrRefused)
		case a.Error == "" && a.RetryAfter == 0:
			return nil
		}
		return a.failure(j.Step)
	}
	a, err := p.run(ctx, j, value)
	switch {
	case err != nil:
		return err
	case a.OK:
		return nil
	}
	return fmt.Errorf("%w: %w", rotate.ErrRefused, a.failure(j.Step))
}

// Revoke runs the program's revoke step.
func (p Provider) Revoke(ctx context.Context, j rotate.Job) error {
	a, err := p.run(ctx, j, j.Candidate)
	if err == nil && !a.OK {
		err = a.failure(j.Step)
	}
	return err
}

func (a answer) failure(step string) error {
	err := fmt.Errorf("the program's %s step is not ok", step)
	if a.Error != "" {
		err = fmt.Errorf("the program's %s step is not ok: %s", step, a.Error)
	}
	if a.RetryAfter > 0 {
		// No more than a day: it is a program's word.
		return &rotate.RetryAfter{After: time.Duration(min(a.RetryAfter, 86400) * float64(time.Second)), Err: err}
	}
	return err
}

// run takes one step. The texts of the answer hold no value.
func (p Provider) run(ctx context.Context, j rotate.Job, candidate guard.Secret) (answer, error) {
	timeout := 30 * time.Second
	if t := j.Options["timeout"]; t != "" {
		d, err := time.ParseDuration(t)
		if err != nil || d <= 0 {
			return answer{}, fmt.Errorf("timeout in the rotate option of %s is not a time like 30s: %w", j.Credential.Name, rotate.ErrPermanent)
		}
		timeout = d
	}
	if err := check(j.Options); err != nil {
		return answer{}, err
	}
	req := request{
		Step: j.Step, Credential: j.Credential.Name, Context: j.Credential.Context, Version: j.Credential.Version,
		User: j.Credential.User, Hosts: j.Credential.Hosts, Intent: j.Intent, Emergency: j.Emergency,
		Current: string(j.Current.Reveal()), Candidate: string(candidate.Reveal()),
	}
	if !utf8.ValidString(req.Current) || !utf8.ValidString(req.Candidate) {
		return answer{}, fmt.Errorf("the value of %s is not text, which is all that the exec provider can carry: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(req); err != nil {
		return answer{}, errors.New("write the program's request")
	}
	defer func() { clear(in.Bytes()[:in.Cap()]) }()

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := osexec.CommandContext(ctx, j.Options["cmd"])
	cmd.Dir = rootDir
	cmd.Env = p.Env
	if cmd.Env == nil {
		cmd.Env = environment()
	}
	out, noise := &limited{max: maxAnswer}, &limited{max: maxNoise}
	// A reader of its own: in's bytes must stay where they can be cleared.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in.Bytes()), out, noise
	group(cmd)
	cmd.WaitDelay = 2 * time.Second
	err := cmd.Run()
	defer clear(out.b)
	defer clear(noise.b)

	var a answer
	dec := json.NewDecoder(bytes.NewReader(out.b))
	parse := dec.Decode(&a)
	hide := newHider(req.Current, req.Candidate, a.Value)
	said := hide.text(string(noise.b))
	if said != "" {
		said = "; it said: " + said
	}
	name := j.Credential.Name
	switch {
	case ctx.Err() != nil:
		return answer{}, fmt.Errorf("rotation program of %s: step %s took longer than %v%s: %w", name, j.Step, timeout, said, ctx.Err())
	case err != nil:
		var exit *osexec.ExitError
		if errors.As(err, &exit) {
			return answer{}, fmt.Errorf("rotation program of %s: step %s failed (%v)%s", name, j.Step, exit.ProcessState, said)
		}
		return answer{}, fmt.Errorf("rotation program of %s: step %s could not be run: %w", name, j.Step, err)
	case out.over:
		return answer{}, fmt.Errorf("rotation program of %s: step %s answered more than %d bytes", name, j.Step, maxAnswer)
	case parse != nil:
		return answer{}, fmt.Errorf("rotation program of %s: step %s did not answer with a JSON object%s", name, j.Step, said)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return answer{}, fmt.Errorf("rotation program of %s: step %s answered more than one JSON object", name, j.Step)
	}
	a.Error = hide.text(a.Error)
	if !a.OK && a.Error == "" && said != "" {
		a.Error = strings.TrimPrefix(said, "; ")
	}
	return a, nil
}

// limited keeps the first max bytes and takes the rest in, so that the program
// is not stopped by a full pipe.
type limited struct {
	b    []byte
	max  int
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.max-len(l.b))
	l.b = append(l.b, p[:n]...)
	l.over = l.over || n < len(p)
	return len(p), nil
}

func environment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}
	if home, err := os.UserHomeDir(); err == nil {
		env = append(env, "HOME="+home)
	}
	return env
}
