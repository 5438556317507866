"""Is all well here, before hours go into it?"""
