"""Layer types that forks of Caffe added: whose they are, and what can be written instead."""

from dataclasses import dataclass

SSD = "SSD's (weiliu89/caffe)"
SHUFFLENET = "ShuffleNet's (farmingyard/ShuffleNet)"
FAST_RCNN = "Fast R-CNN's (rbgirshick/caffe-fast-rcnn)"
GROUPED = 'write type: "Convolution" with group and num_output both the number of channels; its weights are the same'
IN_PYTHON = 'write it as a layer of type: "Python" (docs/pycaffe.md)'


@dataclass(frozen=True)
class ForeignType:
    """A fork's layer type. field: of LayerParameter, that its parameters have there."""

    fork: str
    advice: str
    field: str = ""

    def __str__(self) -> str:
        return f"is none of Caffe 1.0's but the fork {self.fork}; {self.advice}"


# By type. Of several forks that have one of a name it is the one that nets are mostly of.
FOREIGN_TYPES = {
    "AnnotatedData": ForeignType(SSD, "give the net its images as an Input", "annotated_data_param"),
    "Axpy": ForeignType(
        "SENet's (hujie-frank/SENet)",
        'write type: "Scale" with axis: 0 on the second bottom and the first, flattened, and type: "Eltwise"',
    ),
    "BN": ForeignType(
        "SegNet's (alexgkendall/caffe-segnet)",
        'write type: "BatchNorm" and type: "Scale", and turn the weights into theirs',
        "bn_param",
    ),
    "ConvolutionDepthwise": ForeignType(SHUFFLENET, GROUPED),
    "DepthwiseConvolution": ForeignType("of MobileNets (yonghenglh6/DepthwiseConvolution)", GROUPED),
    "DetectionOutput": ForeignType(
        SSD, "end the net before it, and decode boxes from its outputs", "detection_output_param"
    ),
    "Interp": ForeignType("PSPNet's (hszhao/PSPNet)", IN_PYTHON, "interp_param"),
    "MarginInnerProduct": ForeignType(
        "SphereFace's (wy1iu/sphereface)",
        "leave it out of the deployed net, whose features are its bottom",
        "margin_inner_product_param",
    ),
    "MultiBoxLoss": ForeignType(SSD, "leave it out of the deployed net", "multibox_loss_param"),
    "Normalize": ForeignType(SSD, IN_PYTHON, "norm_param"),
    "Permute": ForeignType(SSD, IN_PYTHON, "permute_param"),
    "PriorBox": ForeignType(SSD, "end the net before it, and make the boxes outside", "prior_box_param"),
    "ReLU6": ForeignType("of MobileNets", 'write type: "Clip" with clip_param { min: 0 max: 6 }'),
    "ROIPooling": ForeignType(FAST_RCNN, IN_PYTHON, "roi_pooling_param"),
    "ShuffleChannel": ForeignType(SHUFFLENET, IN_PYTHON, "shuffle_channel_param"),
    "SmoothL1Loss": ForeignType(FAST_RCNN, "leave it out of the deployed net", "smooth_l1_loss_param"),
    "Upsample": ForeignType(
        "SegNet's (alexgkendall/caffe-segnet), or of YOLO's",
        "where it repeats every value, write "
        'type: "Deconvolution" with kernel_size and stride the scale, group and num_output the '
        "number of channels, bias_term: false and a constant weight_filler of 1",
        "upsample_param",
    ),
}
FOREIGN_FIELDS = {foreign.field: foreign for foreign in FOREIGN_TYPES.values() if foreign.field}
