// A Kubernetes without machines, in one program, for the tests of this project: the real etcd, API server, controllers
// and scheduler, and KWOK, which plays nodes and pods. One program, because what they share is then compiled and linked
// once.
//
//	buoy-kubernetes etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kwok OPTION...
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	kwok "sigs.k8s.io/kwok/pkg/kwok/cmd"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
	"sigs.k8s.io/kwok/pkg/utils/signals"
)

func main() {
	if len(os.Args) < 2 {
		fail("which of etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok?")
	}
	os.Args = os.Args[1:]
	switch os.Args[0] {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		run(controllers.NewControllerManagerCommand())
	case "kube-scheduler":
		run(scheduler.NewSchedulerCommand())
	case "kwok":
		if err := playNodes(); err != nil {
			fail(err)
		}
	default:
		fail("there is no " + os.Args[0])
	}
}

func run(command *cobra.Command) {
	os.Exit(cli.Run(command))
}

// KWOK reads its configuration files before it has a command, as its own program does.
func playNodes() error {
	flags := pflag.NewFlagSet("global", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.Usage = func() {}
	ctx, _ := kwoklog.InitFlags(signals.SetupSignalContext(), flags)
	ctx, err := kwokconfig.InitFlags(ctx, flags)
	if err != nil {
		return err
	}
	command := kwok.NewCommand(ctx)
	command.Version = "" // --version is that of Kubernetes, which has taken it in the whole program
	command.PersistentFlags().AddFlagSet(flags)
	return command.ExecuteContext(ctx)
}

func fail(reason any) {
	fmt.Fprintln(os.Stderr, reason)
	os.Exit(1)
}
