"""Devices made for trying out a machine: firmware tests, kernel test suites, drivers that one learns on."""
