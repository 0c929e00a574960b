package local

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

// sharedLibraries are the paths of the libraries, and of the loader, that a file needs to run; none
// if it is no program or a static one.
func sharedLibraries(file string) ([]string, error) {
	program, err := elf.Open(file)
	var otherFormat *elf.FormatError
	if errors.As(err, &otherFormat) || errors.Is(err, io.EOF) { // the latter: too short even for a header
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer program.Close()
	isInterpreter := func(header *elf.Prog) bool { return header.Type == elf.PT_INTERP }
	if !slices.ContainsFunc(program.Progs, isInterpreter) {
		return nil, nil
	}
	output, err := exec.Command("ldd", file).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w: %s", file, err, output)
	}
	libraries, err := parseLdd(string(output))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return libraries, nil
}

// parseLdd takes the paths from lines like "libc.so.6 => /lib/libc.so.6 (0x7f00)" and, for the
// loader, "/lib64/ld-linux-x86-64.so.2 (0x7f00)". A line without a path is of the kernel's own.
func parseLdd(output string) ([]string, error) {
	var libraries []string
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, "not found") {
			return nil, fmt.Errorf("a shared library is missing on this machine: %s", line)
		}
		if _, found, arrow := strings.Cut(line, "=> "); arrow {
			line = found
		}
		if path, _, _ := strings.Cut(line, " ("); strings.HasPrefix(path, "/") {
			libraries = append(libraries, path)
		}
	}
	return libraries, nil
}
