#!/usr/bin/env bash
# cluster.sh COMMAND   a whole Kubernetes on this machine, out of source: etcd, the API server, controllers, scheduler, and a node
# with kubelet, containerd and kube-proxy; and a load balancer that gives Services of that type an address of 10.97.0.0/24.
#
#   up               starts it, and builds what is missing (minutes, once per version); where it runs, starts only what has ended
#   down             ends it and removes all that it made
#   needs            looks whether this machine can run one, and installs the programs that it lacks
#   exec COMMAND...  runs a command in its network, where pods and Services answer, with KUBECONFIG, kubectl and helm
#   shell            the same with a shell
#   import FILE...   loads image tarballs into its node
#   stop NAME...     kills programs (kube-apiserver, kubelet, ...); start NAME... starts them again
#   status           which programs run, and where the files are
#   logs DIRECTORY   copies the logs of programs and pods
#
# CLUSTER names it (default gatehouse): another name is another cluster beside it. PROXY is kube-proxy's mode, nftables or iptables.
# It lives in net, pid and mount namespaces of its own: this machine's network and settings stay as they are.
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
name=${CLUSTER:-gatehouse}
cache=${XDG_CACHE_HOME:-${HOME:?is not set, and XDG_CACHE_HOME neither: where is the cache?}/.cache}/gatehouse
state=$cache/clusters/$name
cgroup=gatehouse-cluster-$name

say() { echo "hack/kube: $*" >&2; }
die() { say "$*"; exit 1; }

usage() {
	sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$here/cluster.sh" >&2
	exit 2
}

# --- what it needs

fits() {
	[ "$(uname -s)" = Linux ] || die "a cluster needs Linux (this is $(uname -s)): run it in a Linux virtual machine, or in a container with --privileged, that has Go"
	[ "$(id -u)" = 0 ] || die "a cluster needs root, for namespaces, mounts and cgroups: try again with sudo -E, or in a container with --privileged"
	unshare --net --pid --mount --fork true 2>/dev/null ||
		die "root may make no namespaces here: if this is a container, start it with --privileged (CAP_SYS_ADMIN and CAP_NET_ADMIN)"
}

# lacking prints the Debian packages of the commands that aren't there.
lacking() {
	local pair
	for pair in containerd:containerd ctr:containerd runc:runc iptables:iptables nft:nftables conntrack:conntrack ip:iproute2 \
		openssl:openssl nsenter:util-linux flock:util-linux mount:mount awk:mawk find:findutils; do
		command -v "${pair%:*}" >/dev/null || echo "${pair#*:}"
	done
	[ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || echo containernetworking-plugins
}

packages() {
	local wanted log
	wanted=$(lacking | sort -u | xargs)
	[ -n "$wanted" ] || return 0
	command -v apt-get >/dev/null || die "install what Debian calls: $wanted"
	say "installing $wanted"
	log=$(mktemp)
	export DEBIAN_FRONTEND=noninteractive
	# Another who installs, such as a machine's first updates, is waited for.
	local options=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
	if ! { apt-get "${options[@]}" update && apt-get "${options[@]}" install -y --no-install-recommends $wanted; } >"$log" 2>&1; then
		cat "$log" >&2
		rm "$log"
		die "apt-get can't install $wanted (see above)"
	fi
	rm "$log"
	wanted=$(lacking | sort -u | xargs)
	[ -z "$wanted" ] || die "still missing after its installation: $wanted"
}

# --- what runs

# init prints the number of the first process of the namespaces. It compares the time when it began as well: after a reboot
# the number may be somebody else's.
init() {
	local pid rest
	read -r pid rest 2>/dev/null <"$state/init" || return 1
	[ "$(began <"$state/init")" = "$(began 2>/dev/null <"/proc/$pid/stat")" ] || return 1
	echo "$pid"
}

began() { awk '{print $22}'; }

# running sets pid. One that is killed may be there for a moment without its namespaces.
running() { pid=$(init) && [ -e "$state/ready" ] && [ -e "/proc/$pid/ns/net" ]; }

needs_running() { running || die "the cluster $name doesn't run: start it by make cluster-up"; }

# inside runs a command where the programs are.
inside() { nsenter --target "$pid" --net --pid --mount "$@"; }

# program_runs NAME: its number there, if it is alive.
program_runs() {
	local number
	number=$(cat "$state/pids/$1" 2>/dev/null) || return 1
	inside sh -c 'read comm <"/proc/$1/comm" && case $2 in "$comm"*) ;; *) exit 1 ;; esac' sh "$number" "$1" 2>/dev/null && echo "$number"
}

known() { [ -e "$state/programs/$1" ] || die "no such program: $1 (there are: $(ls "$state/programs" | xargs))"; }

start() {
	known "$1"
	program_runs "$1" >/dev/null || inside setsid --fork "$state/programs/$1"
}

# stop asks nobody: a graceful API server would wait for its watchers.
stop() {
	local number
	known "$1"
	number=$(program_runs "$1") || return 0
	inside kill -9 "$number"
	while program_runs "$1" >/dev/null; do sleep 0.05; done
}

status() {
	local program number
	needs_running
	echo "cluster $name: KUBECONFIG=$state/kubeconfig (inside), logs in $state/logs"
	for program in "$state"/programs/*; do
		program=${program##*/}
		if number=$(program_runs "$program"); then
			echo "$program: $(inside awk '/^VmRSS/{printf "%d MiB", $2/1024}' "/proc/$number/status")"
		else
			echo "$program: has ended; the last lines of its log:"
			tail -n 3 "$state/logs/$program.log"
		fi
	done
}

# --- up and down

# locked is for up and down: two who want the same cluster come one after the other.
locked() {
	mkdir -p "$cache"
	exec 9<"$cache"
	flock -n 9 || { say "waiting for another who starts or ends a cluster"; flock 9; }
}

up() {
	fits
	packages
	bin=$("$here/build.sh" cluster)
	locked
	if running; then
		local program
		for program in "$state"/programs/*; do start "${program##*/}"; done
		say "the cluster $name runs"
		return
	fi
	remove # what a reboot or a kill left half
	trap remove EXIT
	trap 'exit 130' INT TERM HUP PIPE
	files
	namespaces
	pid=$(init)
	import "$state"/images/*.tar
	all_run || die "the cluster $name didn't stay up (see above)"
	trap - EXIT INT TERM HUP PIPE
	say "the cluster $name is up: make cluster-shell, or hack/kube/cluster.sh exec COMMAND; its files are in $state"
}

# files makes the directory with all that is ours: small programs and images.
files() {
	mkdir -p "$state"/{bin,images,logs,pids,programs,pki,tools,volume-plugins}
	chmod 700 "$state"
	ln -s "$bin/kubectl" "$state/tools/"
	(
		cd "$here/../.."
		export GOTOOLCHAIN=auto CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off
		unset GOOS GOARCH
		go build -trimpath -ldflags "-s -w" -o "$state/bin/" ./hack/kube/pause ./hack/kube/balancer ./hack/backend ./hack/image
	) || die "go build failed (see above)"

	local image=$state/bin/image
	"$image" -o "$state/images/pause.tar" -name localhost/pause:dev "$state/bin/pause=/pause"
	"$image" -o "$state/images/backend.tar" -name gatehouse-dev/backend:dev "$state/bin/backend=/backend"
}

# namespaces starts node.sh in them and shows what it says until it has done its work. The environment is a clean one: proxies
# of this machine are none of a cluster's.
namespaces() {
	local log=$state/logs/node.log outer shown=0
	setsid unshare --net --pid --mount --propagation slave --fork --kill-child \
		env -i PATH="$PATH" HOME="$state" LANG=C.UTF-8 bash "$here/node.sh" "$state" "$bin" "$cgroup" "${PROXY:-nftables}" >"$log" 2>&1 </dev/null 9>&- &
	outer=$!
	while [ ! -e "$state/ready" ] && kill -0 $outer 2>/dev/null; do
		sleep 0.1
		show
	done
	show
	[ -e "$state/ready" ] && return
	for log in "$state"/logs/*.log; do
		say "the last lines of $log:"
		tail -n 5 "$log" >&2
	done
	die "the cluster $name didn't start (see above)"
}

all_run() {
	local program result=0
	for program in "$state"/programs/*; do
		program_runs "${program##*/}" >/dev/null && continue
		say "${program##*/} has ended; the last lines of its log:"
		tail -n 5 "$state/logs/${program##*/}.log" >&2
		result=1
	done
	return $result
}

# show tells the lines of the log that were not told yet.
show() {
	tail -n +$((shown + 1)) "$log" | sed 's/^/hack\/kube: /' >&2
	shown=$(wc -l <"$log")
}

# import waits until the kubelet's side knows the images too: it hears of them a moment later.
import() {
	local file images image snapshotter
	snapshotter=$(cat "$state/snapshotter")
	for file; do
		[ -r "$file" ] || die "can't read $file"
		images=$(inside ctr --namespace k8s.io images import --snapshotter "$snapshotter" - <"$file" | awk '/^unpacking/{print $2}')
		[ -n "$images" ] || die "no image in $file"
		for image in $images; do
			say "image $image"
			until inside ctr --namespace k8s.io images ls "name==$image" | grep -q io.cri-containerd.image=managed; do sleep 0.05; done
		done
	done
}

# remove ends the cluster and takes away what it made. What was mounted went with the last process.
remove() {
	local pid hierarchy
	if pid=$(init); then
		kill -9 "$pid" 2>/dev/null || true
		while init >/dev/null; do sleep 0.05; done
	fi
	for hierarchy in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
		if [ -d "$hierarchy$cgroup" ]; then find "$hierarchy$cgroup" -depth -type d -exec rmdir {} +; fi
	done
	rm -rf --one-file-system "$state"
	rmdir "$cache/clusters" 2>/dev/null || true
}

# --- commands

[[ $name =~ ^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$ ]] || die "CLUSTER=$name: a name of small letters, digits and -, please"
command=${1:-}
[ $# = 0 ] || shift

case $command in
up) up ;;
down)
	fits
	locked
	if [ -e "$state" ]; then
		remove
		say "the cluster $name is gone"
	else
		say "there is no cluster $name"
	fi
	;;
exec | shell)
	needs_running
	[ "$command" = exec ] || { set -- "${SHELL:-bash}"; say "kubectl and helm know the cluster, pods and Services answer, and exit leaves it"; }
	[ $# != 0 ] || usage
	PATH=$state/tools:$PATH
	for helm in "$cache"/helm/*/helm; do [ ! -x "$helm" ] || PATH=${helm%/*}:$PATH; done # of hack/helm.sh
	export PATH CLUSTER=$name KUBECONFIG=$state/kubeconfig KUBECACHEDIR=$state/kubectl-cache
	export HELM_CACHE_HOME=$state/helm/cache HELM_CONFIG_HOME=$state/helm/config HELM_DATA_HOME=$state/helm/data
	exec nsenter --net="/proc/$pid/ns/net" "$@"
	;;
needs)
	fits
	packages
	;;
logs)
	[ $# = 1 ] || usage
	needs_running
	mkdir -p "$1"
	cp -r "$state/logs/." "$1"
	;;
import | start | stop)
	[ $# != 0 ] || usage
	needs_running
	for argument; do $command "$argument"; done
	;;
status) status ;;
*) usage ;;
esac
