"""What is compared with each host: cases() of a module yields a name and a function.

The function gives the host's answer; it is told whether it is substituted, for a host that must be asked in
another way then.  One that raises stock is not compared.
"""
