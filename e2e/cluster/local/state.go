package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"
)

// State is what a later command must know of a cluster, in state.json of its directory.
type State struct {
	Node  bool  `json:"node"`
	Ports Ports `json:"ports"`
	// Complete tells that the last start went through to its end.
	Complete bool `json:"complete"`
	// Processes in the order in which they were started, each written before the next is started.
	Processes []NamedProcess `json:"processes"`
	// Cgroups are the control groups, as directories of the host, that a node and its pods run in.
	Cgroups []string `json:"cgroups,omitempty"`
}

// NamedProcess is a process by the program's name.
type NamedProcess struct {
	Name string `json:"name"`
	Process
}

// Short, as it becomes part of paths, also of sockets, which the kernel limits to 108 characters.
var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$`)

// Open reads the cluster's state, if there is any, and holds it locked until release is called, so
// that two commands on one cluster take turns.
func Open(root, name string) (cluster *Cluster, release func(), err error) {
	if !validName.MatchString(name) {
		return nil, nil, fmt.Errorf("--name %q: up to 30 lower-case letters, digits and dashes", name)
	}
	root, err = filepath.Abs(root)
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, nil, err
	}
	cluster = &Cluster{Name: name, Dir: filepath.Join(root, name)}
	lockFile := cluster.Dir + ".lock" // beside the directory, as that comes and goes
	unlock, err := lock(lockFile)
	if err != nil {
		return nil, nil, err
	}
	release = func() {
		if _, err := os.Stat(cluster.Dir); errors.Is(err, os.ErrNotExist) {
			os.Remove(lockFile) // of a cluster that is gone, or never was
		}
		unlock()
	}
	if err := cluster.loadState(); err != nil {
		release()
		return nil, nil, err
	}
	return cluster, release, nil
}

// lock holds the file locked until release is called; whoever deletes it must hold it.
func lock(path string) (release func(), err error) {
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
		if err != nil {
			return nil, err
		}
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		}
		if err != nil {
			file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		held, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, err
		}
		if current, err := os.Stat(path); err == nil && os.SameFile(held, current) {
			return func() { file.Close() }, nil
		}
		file.Close() // deleted while we waited for it
	}
}

func (c *Cluster) exists() bool {
	return c.state.Ports != Ports{}
}

func (c *Cluster) loadState() error {
	text, err := os.ReadFile(c.path("state.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &c.state); err != nil {
		return fmt.Errorf("%s: %w", c.path("state.json"), err)
	}
	return nil
}

// saveState replaces the file as a whole: whoever reads it, also after a crash, finds an old or the
// new state.
func (c *Cluster) saveState() error {
	text, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return err
	}
	temporary := c.path("state.json.new")
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, c.path("state.json"))
}

// record remembers a process, in place of an earlier one of the same name.
func (c *Cluster) record(name string, process Process) error {
	named := NamedProcess{Name: name, Process: process}
	for i := range c.state.Processes {
		if c.state.Processes[i].Name == name {
			c.state.Processes[i] = named
			return c.saveState()
		}
	}
	c.state.Processes = append(c.state.Processes, named)
	return c.saveState()
}
