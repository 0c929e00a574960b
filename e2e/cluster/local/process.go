package local

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process names one process for good: process ids are reused, but not together with a start time,
// and start times count from a boot.
type Process struct {
	PID     int    `json:"pid"`
	Started string `json:"started"`
}

// identify records a process that was just started.
func identify(pid int) (Process, error) {
	started, err := startOf(pid)
	if err != nil {
		return Process{}, err
	}
	return Process{PID: pid, Started: started}, nil
}

// startOf is when the process started: boot id and clock ticks since that boot. A process that has
// ended and was not yet reaped counts as not running.
func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// "pid (name) state ...": the name may itself hold spaces and brackets.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const state, startTime = 0, 19
	if len(fields) <= startTime {
		return "", fmt.Errorf("/proc/%d/stat has %d fields after the name, expected more than %d", pid, len(fields), startTime)
	}
	if fields[state] == "Z" || fields[state] == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(string(boot)) + "/" + fields[startTime], nil
}

func (p Process) running() bool {
	started, err := startOf(p.PID)
	return err == nil && started == p.Started
}

// open gives a pidfd, which stays with the process whatever becomes of its id, or ok = false when
// the process is gone.
func (p Process) open() (pidfd int, ok bool) {
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return -1, false
	}
	if !p.running() { // checked after opening: from here on, the descriptor can't be another's
		unix.Close(pidfd)
		return -1, false
	}
	return pidfd, true
}

// stop sends the signal, and SIGKILL if the process has not ended by then, and waits for its end.
// A process that is already gone, or whose id is now another's, is left alone.
func (p Process) stop(signal unix.Signal, grace time.Duration) error {
	pidfd, ok := p.open()
	if !ok {
		return nil
	}
	defer unix.Close(pidfd)
	for _, step := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{signal, grace}, {unix.SIGKILL, 20 * time.Second}} {
		if err := unix.PidfdSendSignal(pidfd, step.signal, nil, 0); errors.Is(err, unix.ESRCH) {
			return nil
		} else if err != nil {
			return fmt.Errorf("signal process %d: %w", p.PID, err)
		}
		if ended(pidfd, step.wait) {
			return nil
		}
	}
	return fmt.Errorf("process %d has not ended after SIGKILL", p.PID)
}

// ended waits for the end of a process: its pidfd becomes readable.
func ended(pidfd int, wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for {
		polled := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(polled, int(max(0, time.Until(deadline).Milliseconds())))
		if err == nil || !errors.Is(err, unix.EINTR) {
			return n > 0
		}
	}
}
