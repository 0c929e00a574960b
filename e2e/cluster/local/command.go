package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Main is the tool's command line; it returns the exit status.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := newCommand().ExecuteContext(ctx)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0: // of `in`: the command has said what is wrong
		return exit.ExitCode()
	default:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		return 1
	}
}

func newCommand() *cobra.Command {
	// The components that are linked in put flags of theirs here, which cobra would offer as ours.
	pflag.CommandLine = pflag.NewFlagSet("cluster", pflag.ContinueOnError)
	root := &cobra.Command{
		Use:   "cluster",
		Short: "Runs Kubernetes clusters on this machine, without Docker",
		Long: `Runs Kubernetes clusters on this machine, without Docker. Each has a name and a directory
under $CLUSTER_DIR (.cluster here, if that is not set). As "cluster kubectl", "cluster etcd" and
so on it is that program.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	name := root.PersistentFlags().String("name", "holdfast", "which cluster")
	root.CompletionOptions.DisableDefaultCmd = true

	open := func() (*Cluster, func(), error) {
		directory := os.Getenv("CLUSTER_DIR")
		if directory == "" {
			directory = ".cluster"
		}
		return Open(directory, *name)
	}
	// with gives the named cluster to a command, locked while that runs.
	with := func(do func(*cobra.Command, *Cluster, []string) error) func(*cobra.Command, []string) error {
		return func(command *cobra.Command, arguments []string) error {
			cluster, release, err := open()
			if err != nil {
				return err
			}
			defer release()
			return do(command, cluster, arguments)
		}
	}

	var node bool
	up := &cobra.Command{
		Use: "up", Args: cobra.NoArgs,
		Short: "Start a cluster, or what is not running of it, and print its kubeconfig's path",
		RunE: with(func(command *cobra.Command, cluster *Cluster, _ []string) error {
			if err := cluster.Up(command.Context(), node); err != nil {
				return err
			}
			fmt.Println(cluster.kubeconfig("admin"))
			return nil
		}),
	}
	up.Flags().BoolVar(&node, "node", false, "with a node, so that pods run; needs root")

	var downFor time.Duration
	restart := &cobra.Command{
		Use: "restart-apiserver", Args: cobra.NoArgs,
		Short: "Kill the API server and start it again",
		RunE: with(func(command *cobra.Command, cluster *Cluster, _ []string) error {
			return cluster.RestartAPIServer(command.Context(), downFor)
		}),
	}
	restart.Flags().DurationVar(&downFor, "down-for", 0, "how long it stays down in between")

	root.AddCommand(up, restart,
		&cobra.Command{
			Use: "down", Args: cobra.NoArgs,
			Short: "Stop a cluster and remove all that it was",
			RunE:  with(func(_ *cobra.Command, cluster *Cluster, _ []string) error { return cluster.Down() }),
		},
		&cobra.Command{
			Use: "kubeconfig", Args: cobra.NoArgs,
			Short: "Print the path of a cluster's kubeconfig",
			RunE: with(func(_ *cobra.Command, cluster *Cluster, _ []string) error {
				if !cluster.exists() {
					return cluster.errMissing()
				}
				fmt.Println(cluster.kubeconfig("admin"))
				return nil
			}),
		},
		&cobra.Command{
			Use: "load-image NAME:TAG PROGRAM[:PATH] [FILE[:PATH]...]", Args: cobra.MinimumNArgs(2),
			Short: "Make an image of a program, with its shared libraries and other files, for the node",
			RunE: with(func(_ *cobra.Command, cluster *Cluster, arguments []string) error {
				return cluster.LoadImage(arguments[0], arguments[1], arguments[2:])
			}),
		},
		&cobra.Command{
			Use: "image ARCHIVE NAME:TAG PROGRAM[:PATH] [FILE[:PATH]...]", Args: cobra.MinimumNArgs(3),
			Short: "Write such an image to an archive, for another cluster's node",
			RunE: func(_ *cobra.Command, arguments []string) error {
				return SaveImage(arguments[0], arguments[1], arguments[2], arguments[3:])
			},
		},
		newInCommand(open),
	)
	return root
}
