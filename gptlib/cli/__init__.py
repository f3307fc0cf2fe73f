"""The command line: options in, words out; all else is the library's."""
