"""A stand-in for Metacontroller, for machines that do not have the real one.

It speaks the part of Metacontroller's contract that this project's controllers use, with
server-side apply and hook version v2, and refuses the rest. It is not part of the product.
"""
