package local

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

func newInCommand(open func() (*Cluster, func(), error)) *cobra.Command {
	command := &cobra.Command{
		Use: "in COMMAND...", Args: cobra.MinimumNArgs(1),
		Short: "Run a command with the cluster's kubectl and kubeconfig, inside the node's network if there is one",
		RunE: func(_ *cobra.Command, arguments []string) error {
			cluster, release, err := open()
			if err != nil {
				return err
			}
			release() // others may use the cluster while the command runs
			return cluster.In(arguments)
		},
	}
	command.Flags().SetInterspersed(false) // what follows COMMAND is the command's
	return command
}

// In runs a command in the foreground and returns its error, an *exec.ExitError if it ran.
func (c *Cluster) In(arguments []string) error {
	if !c.exists() {
		return c.errMissing()
	}
	path := c.path("bin") + ":" + os.Getenv("PATH") + ":" + searchPath
	environment := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		return strings.HasPrefix(entry, "PATH=") || strings.HasPrefix(entry, "KUBECONFIG=")
	})
	environment = append(environment, "PATH="+path, "KUBECONFIG="+c.kubeconfig("admin"))

	if err := os.Setenv("PATH", path); err != nil { // exec.Command looks the name up here
		return err
	}
	command := exec.Command(arguments[0], arguments[1:]...)
	command.Env = environment
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := c.startInside(command); err != nil {
		return err
	}
	// ^C reaches the command from the terminal by itself; a signal sent to this process does not.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP)
	go func() {
		for received := range signals {
			_ = command.Process.Signal(received) // fails only if it has ended, which Wait tells
		}
	}()
	return command.Wait()
}

// linkKubectl puts this binary into the cluster's bin directory under the name kubectl.
func (c *Cluster) linkKubectl() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	link := c.path("bin", "kubectl")
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Symlink(self, link)
}
