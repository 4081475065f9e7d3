package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/BurntSushi/toml"
)

// settings are the user's own, in config.toml: no repository and no session has a say in them.
type settings struct {
	// IdleLock is how long nothing has to be used for the vault to lock itself; 0: never.
	IdleLock time.Duration
	// SuspendLock locks the vault when the machine was suspended.
	SuspendLock bool
}

func (a *app) configPath() string { return filepath.Join(a.configDir(), "config.toml") }

// settings reads config.toml. Where there is none, or nothing about it: no idle lock, and one on suspend.
func (a *app) settings() (settings, error) {
	s := settings{SuspendLock: true}
	var file struct {
		IdleLock    string `toml:"idle_lock"`
		SuspendLock *bool  `toml:"suspend_lock"`
	}
	b, err := os.ReadFile(a.configPath())
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = toml.Unmarshal(b, &file)
	}
	if err != nil {
		return s, fmt.Errorf("%s: %w", a.configPath(), err)
	}
	if file.SuspendLock != nil {
		s.SuspendLock = *file.SuspendLock
	}
	if file.IdleLock != "" {
		if s.IdleLock, err = parseIdle(file.IdleLock); err != nil {
			return s, fmt.Errorf("%s: %w", a.configPath(), err)
		}
	}
	return s, nil
}

const minIdle = time.Second

func parseIdle(text string) (time.Duration, error) {
	if text == "off" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < minIdle {
		return 0, fmt.Errorf("idle_lock %q: want a duration such as 15m, or off", text)
	}
	return d, nil
}

var idleLine = regexp.MustCompile(`(?m)^[ \t]*idle_lock[ \t]*=.*$`)

// setIdle writes idle_lock into config.toml, and leaves the rest of it as it is.
func (a *app) setIdle(text string) error {
	if _, err := parseIdle(text); err != nil {
		return usageError{err}
	}
	b, err := os.ReadFile(a.configPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	line := fmt.Sprintf("idle_lock = %q", text)
	if idleLine.Match(b) {
		b = idleLine.ReplaceAllLiteral(b, []byte(line))
	} else {
		b = append([]byte(line+"\n"), b...) // before the first table
	}
	if err := toml.Unmarshal(b, &struct{}{}); err != nil {
		return fmt.Errorf("%s: %w", a.configPath(), err)
	}
	return writeFile(a.configPath(), b)
}
