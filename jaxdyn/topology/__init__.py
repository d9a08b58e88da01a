"""Topology of the residual coordinates: their correlation graph, its communities, and who amplifies.

The analysis of Fernando and Guitchounts (arXiv 2605.14258): does a coordinate that stands between communities amplify
more? Each coupling comes with every null of `ladder`, the rotated basis first, and with the first that explains it.
Couplings describe coordinates; a basis is a choice, and what a random basis shows too is no property of coordinates.
"""

from .amplification import AMPLIFICATIONS as AMPLIFICATIONS
from .amplification import amplifications as amplifications
from .amplification import block_gains as block_gains
from .amplification import community_amplifications as community_amplifications
from .boundary import BOUNDARIES as BOUNDARIES
from .boundary import conductance as conductance
from .boundary import external_share as external_share
from .boundary import participation as participation
from .boundary import participation_signed as participation_signed
from .boundary import participation_z as participation_z
from .communities import Communities as Communities
from .communities import adjusted_rand as adjusted_rand
from .communities import consensus as consensus
from .communities import find_communities as find_communities
from .communities import signed_modularity as signed_modularity
from .correlation import Moments as Moments
from .correlation import correlation as correlation
from .correlation import marchenko_pastur_edge as marchenko_pastur_edge
from .correlation import moments as moments
from .correlation import shrink as shrink
from .coupling import community_coupling as community_coupling
from .coupling import coupling as coupling
from .dataset import join_layers as join_layers
from .graph import SignedGraph as SignedGraph
from .graph import top_k_graph as top_k_graph
from .layer import layer_topology as layer_topology
from .moran import moran_basis as moran_basis
from .moran import moran_index as moran_index
from .moran import moran_surrogates as moran_surrogates
from .noise import matched_moments as matched_moments
from .noise import noise_floor as noise_floor
from .noise import permuted as permuted
from .rewiring import rewire as rewire
from .run import topology as topology
from .run import write_topology as write_topology
from .settings import NULLS as NULLS
from .settings import TopologySettings as TopologySettings
from .verdict import against as against
from .verdict import explained_by as explained_by
from .verdict import max_t as max_t
