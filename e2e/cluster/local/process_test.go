package local

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sleeper starts a process that lives until it is stopped.
func sleeper(t *testing.T) (*exec.Cmd, Process) {
	t.Helper()
	command := exec.Command("sleep", "600")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	process, err := identify(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return command, process
}

func TestStopEndsTheProcess(t *testing.T) {
	command, process := sleeper(t)
	if !process.running() {
		t.Fatal("a process that was just started counts as not running")
	}
	if err := process.stop(unix.SIGTERM, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if process.running() {
		t.Error("still running after stop; a process that nobody has reaped must count as ended")
	}
	command.Wait()
	if err := process.stop(unix.SIGTERM, time.Second); err != nil {
		t.Errorf("stopping what is already gone: %v", err)
	}
}

func TestStopKillsWhatIgnoresTheSignal(t *testing.T) {
	_, process := sleeper(t)
	if err := process.stop(unix.SIGCONT, 10*time.Millisecond); err != nil { // SIGCONT does not end it
		t.Fatal(err)
	}
	if process.running() {
		t.Error("still running after SIGKILL")
	}
}

func TestAReusedProcessIDIsLeftAlone(t *testing.T) {
	_, process := sleeper(t)

	// given the record of an earlier process that had the same id
	earlier := Process{PID: process.PID, Started: process.Started + "0"}

	// when that one is stopped
	if err := earlier.stop(unix.SIGKILL, time.Second); err != nil {
		t.Fatal(err)
	}

	// then the process that has the id now lives on
	if earlier.running() {
		t.Error("another process's id and start time count as running")
	}
	if !process.running() {
		t.Error("a process that was not ours was killed")
	}
}

func TestIdentifyNamesThisProcess(t *testing.T) {
	process, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	again, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if process != again || process.Started == "" {
		t.Errorf("one process has two identities: %v and %v", process, again)
	}
}
