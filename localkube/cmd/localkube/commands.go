package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/localkube/internal/cluster"
)

func newStopCommand(root *rootFlag) *cobra.Command {
	return &cobra.Command{
		Use:   "stop NAME",
		Short: "Stop a cluster; its data stays",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			c, err := root.open(arguments[0])
			if err != nil {
				return err
			}
			wasRunning, err := c.Stop(command.Context())
			if err != nil {
				return err
			}
			verb := "is stopped"
			if !wasRunning {
				verb = "was not running"
			}
			fmt.Fprintf(command.OutOrStdout(), "cluster %q %s\n", c.Name, verb)
			return nil
		},
	}
}

func newDeleteCommand(root *rootFlag) *cobra.Command {
	var force bool
	command := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a cluster and its data",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			c, err := root.open(arguments[0])
			if err != nil {
				return err
			}
			if err := c.Delete(command.Context(), force); err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "cluster %q is deleted\n", c.Name)
			return nil
		},
	}
	command.Flags().BoolVar(&force, "force", false, "stop the cluster first if it is running")
	return command
}

func newKubeconfigCommand(root *rootFlag) *cobra.Command {
	return &cobra.Command{
		Use:   "kubeconfig NAME",
		Short: "Print the path of the kubeconfig of a cluster",
		Args:  cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			c, err := root.open(arguments[0])
			if err != nil {
				return err
			}
			if _, err := c.State(); err != nil {
				return err
			}
			fmt.Fprintln(command.OutOrStdout(), c.Kubeconfig())
			return nil
		},
	}
}

func newListCommand(root *rootFlag) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Print the names of all clusters",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			clusters, err := listClusters(root)
			if err != nil {
				return err
			}
			for _, c := range clusters {
				fmt.Fprintln(command.OutOrStdout(), c.Name)
			}
			return nil
		},
	}
}

func newStatusCommand(root *rootFlag) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show how a cluster is, or all of them",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, arguments []string) error {
			if output != "" && output != "json" {
				return fmt.Errorf("--output %q: use json, or leave it out", output)
			}
			if len(arguments) == 0 {
				return printAll(command.Context(), command.OutOrStdout(), root, output)
			}
			c, err := root.open(arguments[0])
			if err != nil {
				return err
			}
			status, err := c.Status(command.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(command.OutOrStdout(), status)
			}
			return printTable(command.OutOrStdout(), []cluster.Status{status})
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "", "json, or a table when left out")
	return command
}

func printAll(ctx context.Context, out io.Writer, root *rootFlag, output string) error {
	clusters, err := listClusters(root)
	if err != nil {
		return err
	}
	all := []cluster.Status{}
	for _, c := range clusters {
		status, err := c.Status(ctx)
		if err != nil {
			return err
		}
		all = append(all, status)
	}
	if output == "json" {
		return printJSON(out, all)
	}
	return printTable(out, all)
}

func listClusters(root *rootFlag) ([]cluster.Cluster, error) {
	path, err := root.resolve()
	if err != nil {
		return nil, err
	}
	return cluster.List(path)
}

func printJSON(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

func printTable(out io.Writer, all []cluster.Status) error {
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tSTATUS\tPID\tSERVER\tNODES\tKUBECONFIG")
	for _, s := range all {
		phase := string(s.Phase)
		if s.Reason != "" {
			phase += " (" + s.Reason + ")"
		}
		pid := "-"
		if s.PID != 0 {
			pid = fmt.Sprint(s.PID)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\n", s.Name, phase, pid, s.Server, s.Nodes, s.Kubeconfig)
	}
	return table.Flush()
}
