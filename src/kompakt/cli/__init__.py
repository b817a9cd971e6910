"""The command line. One file a command; none imports torch or rich before it runs."""
