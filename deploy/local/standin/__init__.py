"""A stand-in for Metacontroller, for machines that do not have the real one.

The stand-in implements the part of Metacontroller's API that localmodel's controllers use, with
server-side apply and hook version v2, and refuses the rest. It is not part of the product.
"""
