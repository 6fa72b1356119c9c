"""What tests share: inputs, formats, executors, how bits are compared, child processes, terminals."""
