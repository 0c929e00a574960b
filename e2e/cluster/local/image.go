package local

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// image is a container image of one layer, made from files of this machine. The first file is its
// program.
type image struct {
	files []imageFile
}

// imageFile is a file of this machine (source), or a text, and its path in the image.
type imageFile struct {
	path   string
	source string
	text   string
}

// LoadImage makes an image of a program and gives it to the node. Along come the shared libraries
// that it needs, other files (with what they need), and the machine's certificate authorities. A
// file is named FILE or FILE:PATH, the path being that in the image: by default the program is at
// the top, /NAME, and another file where it is on this machine.
func (c *Cluster) LoadImage(name, program string, others []string) error {
	if !c.exists() {
		return c.errMissing()
	}
	if !c.state.Node {
		return fmt.Errorf("cluster %q has no node to run images on: start it with --node", c.Name)
	}
	made, err := newImage(program, others)
	if err != nil {
		return err
	}
	return c.importImage(name, made)
}

// SaveImage writes such an image to an archive instead, as an OCI image layout.
func SaveImage(archive, name, program string, others []string) error {
	made, err := newImage(program, others)
	if err != nil {
		return err
	}
	file, err := os.Create(archive)
	if err != nil {
		return err
	}
	return errors.Join(made.write(file, name), file.Close())
}

func newImage(program string, others []string) (image, error) {
	var made image
	for i, argument := range append([]string{program}, others...) {
		source, target, given := strings.Cut(argument, ":")
		source, err := filepath.Abs(source)
		if err != nil {
			return image{}, err
		}
		switch {
		case given && !path.IsAbs(target):
			return image{}, fmt.Errorf("%s: the path in the image must be absolute", argument)
		case !given && i == 0:
			target = "/" + filepath.Base(source)
		case !given:
			target = source
		}
		made.files = append(made.files, imageFile{path: target, source: source})
	}
	var libraries []imageFile
	for _, file := range made.files {
		needed, err := sharedLibraries(file.source)
		if err != nil {
			return image{}, err
		}
		for _, library := range needed {
			libraries = append(libraries, imageFile{path: library, source: library})
		}
	}
	made.files = append(made.files, libraries...)
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(authorities); err == nil {
		made.files = append(made.files, imageFile{path: authorities, source: authorities})
	}
	made.files = append(made.files, imageFile{
		path: "/etc/passwd", // for programs that look up who they are
		text: "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin\n",
	})
	return made, nil
}

// importImage hands the image to containerd under a name.
func (c *Cluster) importImage(name string, made image) error {
	archive, err := os.CreateTemp(c.Dir, "image-*.tar")
	if err != nil {
		return err
	}
	defer os.Remove(archive.Name())
	defer archive.Close()
	if err := made.write(archive, name); err != nil {
		return err
	}
	if err := c.ctr("--namespace=k8s.io", "images", "import", archive.Name()); err != nil {
		return fmt.Errorf("import image %s: %w", name, err)
	}
	return nil
}

// ctr runs containerd's own client inside the node.
func (c *Cluster) ctr(arguments ...string) error {
	command := exec.Command("ctr", append([]string{"--address", containerdSocket}, arguments...)...)
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := c.startInside(command); err != nil {
		return err
	}
	if err := command.Wait(); err != nil {
		return errors.New(strings.TrimSpace(output.String()))
	}
	return nil
}
