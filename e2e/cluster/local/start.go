package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// searchPath is where the programs find others: containerd its runc, kube-proxy its nft.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// start runs one of this binary's own programs in the background.
func (c *Cluster) start(name string, arguments ...string) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := exec.Command(self, arguments...)
	command.Args[0] = name
	return c.run(name, command)
}

// run starts a command in the background, inside the node's namespaces if the cluster has one. It
// outlives this process; its output is in log/NAME.log.
func (c *Cluster) run(name string, command *exec.Cmd) (*running, error) {
	logPath := c.path("log", name+".log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command.Stdout, command.Stderr = log, log
	command.Dir = c.Dir
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.Setsid = true // a ^C at this terminal is not for it
	// Nothing of the caller's environment: a proxy set there is not for the cluster's inside.
	command.Env = []string{"PATH=" + searchPath, "HOME=" + c.Dir}
	start := c.startInside
	if name == holder {
		start = (*exec.Cmd).Start
	}
	if err := start(command); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }()
	process := &running{name: name, log: logPath, exited: exited}
	identity, err := identify(command.Process.Pid)
	if err != nil {
		return nil, process.failure(<-exited)
	}
	return process, c.record(name, identity)
}

// running is a program that this process has started.
type running struct {
	name   string
	log    string
	exited chan error
}

// until waits for a condition that the program is to bring about, and fails with the end of its log
// if it exits, or the condition is not met in five minutes.
func (r *running) until(ctx context.Context, what string, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		select {
		case exit := <-r.exited:
			return r.failure(exit)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("interrupted while waiting for %s", what)
			}
			return fmt.Errorf("%s: not within five minutes: %w\n%s", what, err, r.logEnd())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (r *running) failure(exit error) error {
	if exit == nil {
		exit = errors.New("exit status 0")
	}
	return fmt.Errorf("%s ended (%w); the end of %s:\n%s", r.name, exit, r.log, r.logEnd())
}

func (r *running) logEnd() string {
	text, err := os.ReadFile(r.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// beside is the path of another program that was built along with this one.
func beside(name string) (string, error) {
	self, err := os.Executable()
	return filepath.Join(filepath.Dir(self), name), err
}
