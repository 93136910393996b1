"""The rules of a project: one frozen object from the YAML files of its rules folder.

A module per rule file holds its models; `load` reads and cross-checks them as a whole; `project` finds the
folders. Nothing here touches customer data.
"""
