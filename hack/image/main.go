// Command image writes a container image without a container engine: one layer with the files it is given and nothing else ("FROM
// scratch"), as a tarball that `docker load`, `podman load`, `ctr images import` and `kind load image-archive` read.
//
//	image -o out.tar -name name:tag[,name:tag] [-label key=value]... [-port 8080]... program=/path [file=/path]...
//
// The first file is the entrypoint. It must be a static Linux program, as there is nothing in the image that could load another; the image's
// architecture is the program's. Nobody's clock or user is in the image: the same files make the same bytes.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("image: ")
	var i image
	out := flag.String("o", "image.tar", "the tarball to write")
	names := flag.String("name", "", "name:tag, several with commas between them")
	flag.StringVar(&i.user, "user", "65532:65532", "user and group that it runs as, by number: the image has no list of names")
	flag.Var(pairs{&i.labels}, "label", "key=value; may be given again")
	flag.Func("port", "a port that it says to listen on, as 8080 or 53/udp; may be given again", func(port string) error {
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		i.ports = append(i.ports, port)
		return nil
	})
	flag.Parse()
	if *names == "" || flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	i.names = strings.Split(*names, ",")
	for _, argument := range flag.Args() {
		from, to, ok := strings.Cut(argument, "=")
		if !ok {
			log.Fatalf("%s: want file=/path", argument)
		}
		i.files = append(i.files, file{from, to})
	}
	if err := i.writeFile(*out); err != nil {
		log.Fatal(err)
	}
}

// image is what to write.
type image struct {
	names  []string // name:tag
	user   string   // uid:gid
	ports  []string // "8080/tcp"
	labels map[string]string
	files  []file // the first is the entrypoint
}

type file struct{ from, to string } // a path here, and an absolute one in the image

// writeFile writes all of it or nothing.
func (i image) writeFile(name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // fails once it has its name
	err = errors.Join(i.write(out), out.Chmod(0o644), out.Close())
	if err != nil {
		return err
	}
	return os.Rename(out.Name(), name)
}

// write writes the format of `docker save`: a manifest that names a configuration and the layers.
func (i image) write(w io.Writer) error {
	architecture, err := architecture(i.files[0].from)
	if err != nil {
		return err
	}
	layer, err := layer(i.files)
	if err != nil {
		return err
	}
	config, err := json.Marshal(i.config(architecture, digest(layer)))
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]manifest{{digest(config) + ".json", i.names, []string{digest(layer) + "/layer.tar"}}})
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	return errors.Join(
		put(out, digest(config)+".json", 0o644, config),
		put(out, digest(layer)+"/layer.tar", 0o644, layer),
		put(out, "manifest.json", 0o644, manifest),
		out.Close(),
	)
}

type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// configuration is the image's, with those fields of the OCI image specification (config.md) that we fill.
type configuration struct {
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Created      time.Time `json:"created"`
	Config       struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

func (i image) config(architecture, layer string) configuration {
	c := configuration{Architecture: architecture, OS: "linux", Created: epoch}
	c.Config.User = i.user
	c.Config.ExposedPorts = map[string]struct{}{}
	for _, port := range i.ports {
		c.Config.ExposedPorts[port] = struct{}{}
	}
	c.Config.Env = []string{"PATH=/"}
	c.Config.Entrypoint = []string{i.files[0].to}
	c.Config.WorkingDir = "/"
	c.Config.Labels = i.labels
	c.RootFS.Type = "layers"
	c.RootFS.DiffIDs = []string{"sha256:" + layer}
	return c
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

// layer is a tarball of the files and of the directories above them, all of them root's and writable for nobody else.
func layer(files []file) ([]byte, error) {
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	made := map[string]bool{}
	for _, f := range files {
		name, ok := strings.CutPrefix(f.to, "/")
		if !ok || name == "" || filepath.Clean(f.to) != f.to {
			return nil, fmt.Errorf("%s: want a clean absolute path in the image", f.to)
		}
		content, err := os.ReadFile(f.from)
		if err != nil {
			return nil, err
		}
		for n, c := range name {
			if directory := name[:n]; c == '/' && !made[directory] {
				made[directory] = true
				header := tar.Header{Typeflag: tar.TypeDir, Name: directory + "/", Mode: 0o755, ModTime: epoch}
				if err := out.WriteHeader(&header); err != nil {
					return nil, err
				}
			}
		}
		if err := put(out, name, mode(f.from), content); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), out.Close()
}

// mode is readable for all, and executable for all what is so for somebody: the umask of whoever built it doesn't matter.
func mode(name string) int64 {
	if info, err := os.Stat(name); err == nil && info.Mode()&0o111 != 0 {
		return 0o755
	}
	return 0o644
}

func put(out *tar.Writer, name string, mode int64, content []byte) error {
	header := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: epoch}
	if err := out.WriteHeader(&header); err != nil {
		return err
	}
	_, err := out.Write(content)
	return err
}

// architecture reads for which machines a program is. A program that wants a loader would not start in an image that has none.
func architecture(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", fmt.Errorf("%s is no Linux program: %w", program, err)
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return "", fmt.Errorf("%s is not static: build it with CGO_ENABLED=0", program)
		}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		return "amd64", nil
	case elf.EM_AARCH64:
		return "arm64", nil
	}
	return "", fmt.Errorf("%s is for %v: only amd64 and arm64 are known here", program, f.Machine)
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// pairs is a flag that may be given again and again.
type pairs struct{ to *map[string]string }

func (p pairs) String() string { return "" }

func (p pairs) Set(pair string) error {
	key, value, ok := strings.Cut(pair, "=")
	if !ok || key == "" {
		return errors.New("want key=value")
	}
	if *p.to == nil {
		*p.to = map[string]string{}
	}
	(*p.to)[key] = value
	return nil
}
